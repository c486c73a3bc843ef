package walkthrough

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

const (
	// The default timeout of csc for each call.
	callTimeout = time.Minute
	size        = int64(64 << 20)
	content     = "written through the published volume"
)

type step struct {
	name string
	// run returns what it saw, for the line of the step.
	run func(ctx context.Context) (string, error)
}

type walk struct {
	identity   csi.IdentityClient
	controller csi.ControllerClient
	node       csi.NodeClient

	name       string
	staging    string
	target     string
	capability *csi.VolumeCapability

	nodeID         string
	volume         *csi.Volume
	publishContext map[string]string
}

func newWalk(conn *grpc.ClientConn, work string) *walk {
	staging := filepath.Join(work, "staging")
	return &walk{
		identity:   csi.NewIdentityClient(conn),
		controller: csi.NewControllerClient(conn),
		node:       csi.NewNodeClient(conn),
		name:       fmt.Sprintf("walk-through-%d", time.Now().UnixNano()),
		staging:    staging,
		target:     filepath.Join(work, "target"),
		capability: &csi.VolumeCapability{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
		},
	}
}

func (w *walk) steps() []step {
	return []step{
		{"probe", w.probe},
		{"plugin-info", w.pluginInfo},
		{"plugin-capabilities", w.pluginCapabilities},
		{"controller capabilities", w.controllerCapabilities},
		{"node capabilities", w.nodeCapabilities},
		{"node info", w.nodeInfo},
		{"capacity", w.capacity},
		{"create", w.create},
		{"create again", w.createAgain},
		{"create with another size", w.createOtherSize},
		{"list", w.listed(true)},
		{"validate", w.validate},
		{"controller publish", w.controllerPublish},
		{"stage", w.stage},
		{"publish", w.publish},
		{"write and read back", w.write},
		{"stats", w.stats},
		{"unpublish", w.unpublish},
		{"unstage", w.unstage},
		{"controller unpublish", w.controllerUnpublish},
		{"delete", w.delete},
		{"delete again", w.delete},
		{"list without it", w.listed(false)},
	}
}

// cleanUp undoes what an abandoned walk left, as far as it goes; after a whole walk every call of it is a repetition.
func (w *walk) cleanUp() {
	if w.volume == nil {
		return
	}
	for _, undo := range []func(context.Context) (string, error){w.unpublish, w.unstage, w.controllerUnpublish, w.delete} {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		_, _ = undo(ctx)
		cancel()
	}
}
