"""The end-to-end run on a real Kubernetes: a cluster of two nodes on one machine, and what it has to show."""
