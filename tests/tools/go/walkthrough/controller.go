package walkthrough

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (w *walk) controllerCapabilities(ctx context.Context) (string, error) {
	answer, err := w.controller.ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		return "", err
	}
	for _, capability := range answer.GetCapabilities() {
		if capability.GetRpc().GetType() == csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME {
			return fmt.Sprintf("%d, CREATE_DELETE_VOLUME among them", len(answer.GetCapabilities())), nil
		}
	}
	return "", fmt.Errorf("no CREATE_DELETE_VOLUME in %v", answer.GetCapabilities())
}

func (w *walk) capacity(ctx context.Context) (string, error) {
	answer, err := w.controller.GetCapacity(ctx, &csi.GetCapacityRequest{})
	if err != nil {
		return "", err
	}
	if answer.GetAvailableCapacity() < size {
		return "", fmt.Errorf("want at least %d bytes, got %d", size, answer.GetAvailableCapacity())
	}
	return fmt.Sprintf("%d bytes", answer.GetAvailableCapacity()), nil
}

func (w *walk) createWith(ctx context.Context, bytes int64) (*csi.Volume, error) {
	answer, err := w.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name:               w.name,
		CapacityRange:      &csi.CapacityRange{RequiredBytes: bytes, LimitBytes: bytes},
		VolumeCapabilities: []*csi.VolumeCapability{w.capability},
	})
	return answer.GetVolume(), err
}

func (w *walk) create(ctx context.Context) (string, error) {
	volume, err := w.createWith(ctx, size)
	if err != nil {
		return "", err
	}
	if volume.GetVolumeId() == "" || volume.GetCapacityBytes() != size {
		return "", fmt.Errorf("want an id and %d bytes, got %v", size, volume)
	}
	w.volume = volume
	return volume.GetVolumeId(), nil
}

func (w *walk) createAgain(ctx context.Context) (string, error) {
	volume, err := w.createWith(ctx, size)
	if err != nil {
		return "", err
	}
	if volume.GetVolumeId() != w.volume.GetVolumeId() {
		return "", fmt.Errorf("want %s again, got %s", w.volume.GetVolumeId(), volume.GetVolumeId())
	}
	return "the same id", nil
}

func (w *walk) createOtherSize(ctx context.Context) (string, error) {
	_, err := w.createWith(ctx, 2*size)
	if status.Code(err) != codes.AlreadyExists {
		return "", fmt.Errorf("want %v, got %v", codes.AlreadyExists, err)
	}
	return codes.AlreadyExists.String(), nil
}

func (w *walk) listed(want bool) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		seen, token := 0, ""
		for found := false; ; {
			answer, err := w.controller.ListVolumes(ctx, &csi.ListVolumesRequest{MaxEntries: 1, StartingToken: token})
			if err != nil {
				return "", err
			}
			for _, entry := range answer.GetEntries() {
				seen++
				found = found || entry.GetVolume().GetVolumeId() == w.volume.GetVolumeId()
			}
			if token = answer.GetNextToken(); token != "" {
				continue
			}
			if found != want {
				return "", fmt.Errorf("want the volume listed: %v, got %v among %d volumes", want, found, seen)
			}
			return fmt.Sprintf("%d volumes, one per page", seen), nil
		}
	}
}

func (w *walk) validate(ctx context.Context) (string, error) {
	answer, err := w.controller.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId:           w.volume.GetVolumeId(),
		VolumeContext:      w.volume.GetVolumeContext(),
		VolumeCapabilities: []*csi.VolumeCapability{w.capability},
	})
	if err != nil {
		return "", err
	}
	if got := len(answer.GetConfirmed().GetVolumeCapabilities()); got != 1 {
		return "", fmt.Errorf("want one capability confirmed, got %d: %s", got, answer.GetMessage())
	}
	return "confirmed", nil
}

func (w *walk) controllerPublish(ctx context.Context) (string, error) {
	answer, err := w.controller.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId:         w.volume.GetVolumeId(),
		NodeId:           w.nodeID,
		VolumeCapability: w.capability,
		VolumeContext:    w.volume.GetVolumeContext(),
	})
	if err != nil {
		return "", err
	}
	if len(answer.GetPublishContext()) == 0 {
		return "", errors.New("the publish context is empty")
	}
	w.publishContext = answer.GetPublishContext()
	return fmt.Sprint(w.publishContext), nil
}

func (w *walk) controllerUnpublish(ctx context.Context) (string, error) {
	_, err := w.controller.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{
		VolumeId: w.volume.GetVolumeId(),
		NodeId:   w.nodeID,
	})
	return w.nodeID, err
}

func (w *walk) delete(ctx context.Context) (string, error) {
	_, err := w.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: w.volume.GetVolumeId()})
	return w.volume.GetVolumeId(), err
}
