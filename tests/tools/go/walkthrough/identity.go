package walkthrough

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func (w *walk) probe(ctx context.Context) (string, error) {
	answer, err := w.identity.Probe(ctx, &csi.ProbeRequest{})
	if err != nil {
		return "", err
	}
	if answer.GetReady() == nil || !answer.GetReady().GetValue() {
		return "", fmt.Errorf("want ready = true, got %v", answer.GetReady())
	}
	return "ready", nil
}

func (w *walk) pluginInfo(ctx context.Context) (string, error) {
	answer, err := w.identity.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil {
		return "", err
	}
	if answer.GetName() == "" || answer.GetVendorVersion() == "" {
		return "", fmt.Errorf("want a name and a version, got %q and %q", answer.GetName(), answer.GetVendorVersion())
	}
	return answer.GetName() + " " + answer.GetVendorVersion(), nil
}

func (w *walk) pluginCapabilities(ctx context.Context) (string, error) {
	answer, err := w.identity.GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{})
	if err != nil {
		return "", err
	}
	for _, capability := range answer.GetCapabilities() {
		if capability.GetService().GetType() == csi.PluginCapability_Service_CONTROLLER_SERVICE {
			return "CONTROLLER_SERVICE", nil
		}
	}
	return "", fmt.Errorf("no CONTROLLER_SERVICE in %v", answer.GetCapabilities())
}
