//! The protocol between plugin, Flocker and orchestrator as a model, searched exhaustively.
//!
//! Two nodes, each with an agent, a kernel and a plugin; one control service; one controller; one orchestrator; one volume,
//! made on node A and placed there first. The checker ([stateright]) takes the steps of all of them in every order, with every
//! failure within the bounds, until no new state is found. It keeps a 64-bit fingerprint of each state: two states with one
//! fingerprint, of which one would be missed, are possible with a probability below 10⁻⁷ for a million states, and below 10⁻³
//! for a hundred million.
//!
//! # What is modelled
//!
//! - **The control service**: primary, lease (a compare-and-set), DELETE lease without a condition. A reply may be lost, and a
//!   request carried out after its sender has given up.
//! - **The agents** act upon the configuration that they received last, and on what they find on their machine: they unmount,
//!   detach, attach and mount in steps. `umount` is refused while Flocker's mount is pinned, and names the device, so a mount of
//!   the same device under another name keeps the device and not Flocker's mount. A lease keeps a volume mounted, and only while
//!   the agent sees its mount.
//! - **The back ends**: *exclusive* detaches no device that is mounted; *attaches twice* forgets it, and the device lives on
//!   below the plugin's mount while the volume is attached to another node.
//! - **The plugins**: staging record, pin, alias, publication; the watch of the leases; everything but record and mounts dies
//!   with the process. Orchestrators call until they succeed, detach by force, leave `NodeUnstage` out.
//! - **A task writes** while its volume is published and its file system is not shut down.
//!
//! Not modelled: names, several volumes, staging paths or plugins of one node, `DeleteVolume`, time. What takes a grace may happen
//! at once; a node counts as gone only while its agent is dead. An attachment does not wait until the other node reports that it
//! has released the volume, because that report proves nothing: what is found holds without it.
//!
//! # Bounds
//!
//! The first placement and two operations of the orchestrator, with two kills (agent, plugin, machine, controller, control
//! service), or a kill and a lost or late request, or two lost or late requests; with takeovers one kill. `PROTOCOL_KILLS`,
//! `PROTOCOL_LOSSES` and `PROTOCOL_OPERATIONS` choose larger ones, of which only fingerprints are kept.
//!
//! `make model` searches two kills *and* two lost or late requests *and* two operations in one course. All eight spaces were
//! searched to the end, and nothing but the expected violation was found (on two cores with other work; 5 GB at most):
//!
//! | back end | attached by | takeover | states | unique | depth | seconds |
//! |---|---|---|---|---|---|---|
//! | exclusive | controller | never | 57,588,661 | 7,489,137 | 49 | 19 |
//! | exclusive | controller | node-gone | 852,771,176 | 112,490,732 | 64 | 592 |
//! | exclusive | node | never | 118,136,254 | 17,048,079 | 67 | 39 |
//! | exclusive | node | node-gone | 787,967,894 | 110,810,941 | 73 | 308 |
//! | attaches twice | controller | never | 64,370,093 | 8,600,492 | 55 | 19 |
//! | attaches twice | controller | node-gone | 911,549,161 | 122,225,844 | 69 | 513 |
//! | attaches twice | node | never | 152,520,473 | 23,333,999 | 81 | 136 |
//! | attaches twice | node | node-gone | 919,933,851 | 134,731,435 | 80 | 640 |
//!
//! # Guards
//!
//! Each rule of the protocol is a switch ([`setup::Guards`]). `tests/guards.rs` takes out one at a time and expects the
//! counterexample. Where the program decides by a pure function, the model calls that function
//! ([`flocker_csi::decisions`]).
//!
//! | guard | in the program |
//! |---|---|
//! | `pin` | `src/node/stage.rs`, `mount`; `src/host/pins.rs` |
//! | `pins_again` | `src/host/restore.rs`, `pin_again`; `src/host/lifecycle/decide.rs`, `restore` (called) |
//! | `lease_before_move` | `src/flocker/attach.rs`, `attempt` |
//! | `attach_reads_last` | `src/flocker/attach.rs`, `converged` |
//! | `stage_reads_last` | `src/node/stage.rs`, `mount_pinned`, `may_use` |
//! | `release_reads_first` | `src/flocker/cluster/leases.rs`, `release_lease_of` |
//! | `puts_back` | `src/flocker/cluster/leases.rs`, `reacquire` |
//! | `stops_writes` | `src/node/lease_watch/decide.rs`, `decide` (called); `src/host/protection.rs` |
//! | `asks_primary` | `src/node/lease_watch/decide.rs`, `asks_primary`, `decide` (called); `whose.rs`, `primary_of` |
//! | `stops_replaced` | `src/node/lease_watch/decide.rs`, `decide` (called); `src/host/protection.rs`, `is_replaced` |
//! | `leases_again`, `leaves_controllers_leases`, `lets_go` | `src/node/lease_watch/decide.rs`, `decide` (called) |
//! | `own_device_name` | `src/host/mount/alias/` |
//! | `publishes_healthy_only` | `src/host/lifecycle/decide.rs`, `publish` (called) |
//! | `remembers_releases` | `src/host/unstage.rs`, `mark_release_pending`; `src/host/lifecycle/decide.rs`, `unstage`, `restore` (called) |
//!
//! `attach_reads_last` alone has no counterexample: `NodeStage` reads the same and is refused. Without both, a volume is waited for
//! permanently. `lease_before_move` alone has none since the primary stops a plugin that was dead: without both, two nodes write.
//!
//! # What the model shows that the protocol cannot exclude
//!
//! Two writers, under exactly these conditions ([`properties`], `is_expected`): the back end attaches twice; the old node's plugin
//! was dead while the volume was staged; its lease was lost meanwhile (detached by force, taken over, hit by a DELETE), or the
//! agent had not received yet that the lease is this node's when the pin was lost; and the plugin has not read since that another
//! node may have the volume: that another node has the lease, or is the primary of a volume that no node has leased, or that
//! Flocker has mounted the volume on this node from another device. So it lasts longer than the plugin's start only where the lease
//! is this node's, or no node's and the primary is this node, until Flocker has mounted the volume here again: a mount that is
//! missing proves nothing (`courses/agent-is-behind.json`).
//!
//! A volume whose writes were stopped while its agent kept the same file system mounted: `NodeStage` refuses it until that is
//! unmounted.
//!
//! A task goes on without a lease, pinned, where only nodes attach, its lease was hit by mistake, and the primary is another node
//! that wants the volume no longer: it is reported, not leased again.
//!
//! A lease that no node needs, where a POST lease is carried out after its sender has given up, or where a lease is put back after
//! its node has released it: it is reported (`leases_unexplained`) and never released by guess. A volume in use without its lease,
//! where the process dies between a DELETE that hit another node's lease and putting that back, or another node is faster: the pin
//! holds.
//!
//! [stateright]: https://docs.rs/stateright

pub mod checker;
mod controller;
pub mod course;
mod decided;
mod flocker;
mod levels;
mod orchestrator;
mod plugin;
pub mod properties;
pub mod search;
pub mod setup;
pub mod state;
