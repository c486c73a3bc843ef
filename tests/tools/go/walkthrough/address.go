package walkthrough

import (
	"net"
	"strings"
	"time"
)

// Dial connects to an endpoint in any of the forms csc takes: unix:///abs, tcp://host:port, and a bare path, absolute
// or relative to the working directory.
func Dial(endpoint string, timeout time.Duration) (net.Conn, error) {
	network, address := "unix", endpoint
	if scheme, rest, found := strings.Cut(endpoint, "://"); found {
		network, address = scheme, rest
	}
	return net.DialTimeout(network, address, timeout)
}
