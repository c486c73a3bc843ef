package walkthrough

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func (w *walk) nodeCapabilities(ctx context.Context) (string, error) {
	answer, err := w.node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		return "", err
	}
	for _, capability := range answer.GetCapabilities() {
		if capability.GetRpc().GetType() == csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME {
			return fmt.Sprintf("%d, STAGE_UNSTAGE_VOLUME among them", len(answer.GetCapabilities())), nil
		}
	}
	return "", fmt.Errorf("no STAGE_UNSTAGE_VOLUME in %v", answer.GetCapabilities())
}

func (w *walk) nodeInfo(ctx context.Context) (string, error) {
	answer, err := w.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return "", err
	}
	if answer.GetNodeId() == "" {
		return "", errors.New("the node id is empty")
	}
	w.nodeID = answer.GetNodeId()
	return w.nodeID, nil
}

func (w *walk) stage(ctx context.Context) (string, error) {
	if err := os.Mkdir(w.staging, 0o700); err != nil {
		return "", err
	}
	_, err := w.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId:          w.volume.GetVolumeId(),
		PublishContext:    w.publishContext,
		StagingTargetPath: w.staging,
		VolumeCapability:  w.capability,
		VolumeContext:     w.volume.GetVolumeContext(),
	})
	return w.staging, err
}

func (w *walk) publish(ctx context.Context) (string, error) {
	_, err := w.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId:          w.volume.GetVolumeId(),
		PublishContext:    w.publishContext,
		StagingTargetPath: w.staging,
		TargetPath:        w.target,
		VolumeCapability:  w.capability,
		VolumeContext:     w.volume.GetVolumeContext(),
	})
	return w.target, err
}

func (w *walk) write(context.Context) (string, error) {
	apart, err := otherFileSystem(w.target, filepath.Dir(w.target))
	if err != nil {
		return "", err
	}
	if !apart {
		return "", fmt.Errorf("%s is not a mount: what is written there is lost", w.target)
	}
	file := filepath.Join(w.target, "file")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		return "", err
	}
	read, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if string(read) != content {
		return "", fmt.Errorf("want %q, read %q", content, read)
	}
	return fmt.Sprintf("%d bytes", len(read)), nil
}

func (w *walk) stats(ctx context.Context) (string, error) {
	answer, err := w.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{
		VolumeId:   w.volume.GetVolumeId(),
		VolumePath: w.target,
	})
	if err != nil {
		return "", err
	}
	for _, usage := range answer.GetUsage() {
		if usage.GetUnit() != csi.VolumeUsage_BYTES {
			continue
		}
		if usage.GetTotal() <= 0 || usage.GetTotal() > size {
			return "", fmt.Errorf("want a total of at most %d bytes, got %d", size, usage.GetTotal())
		}
		return fmt.Sprintf("%d of %d bytes free", usage.GetAvailable(), usage.GetTotal()), nil
	}
	return "", fmt.Errorf("no usage in bytes in %v", answer.GetUsage())
}

func (w *walk) unpublish(ctx context.Context) (string, error) {
	_, err := w.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{
		VolumeId:   w.volume.GetVolumeId(),
		TargetPath: w.target,
	})
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(w.target); !os.IsNotExist(err) {
		return "", fmt.Errorf("%s is still there: %v", w.target, err)
	}
	return "the target path no longer exists", nil
}

func (w *walk) unstage(ctx context.Context) (string, error) {
	_, err := w.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{
		VolumeId:          w.volume.GetVolumeId(),
		StagingTargetPath: w.staging,
	})
	if err != nil {
		return "", err
	}
	// A plain removal, as kubelet does it, succeeds only on an empty directory without a mount.
	return "the staging path is empty", os.Remove(w.staging)
}
