// Command podsecurity reads manifests from its standard input and prints, for each pod in them, the strictest Pod Security
// profile that allows it, and the objections of stricter profiles. It uses the code by which API servers decide.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// A verdict is about the pods of one object.
type verdict struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Profile string `json:"profile"`
	// The objections, by profile.
	Objections map[string][]string `json:"objections"`
}

func main() {
	verdicts, err := judge(os.Stdin)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(verdicts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "podsecurity:", err)
		os.Exit(1)
	}
}

func judge(manifests io.Reader) ([]verdict, error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	verdicts := []verdict{}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(manifests))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return verdicts, nil
		}
		if err != nil {
			return nil, err
		}
		var object metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(document, &object); err != nil {
			return nil, err
		}
		pod, err := podOf(object.Kind, document)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", object.Kind, object.Name, err)
		}
		if pod == nil {
			continue
		}
		found := verdict{object.Kind, object.Name, string(api.LevelPrivileged), map[string][]string{}}
		for _, level := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
			version := api.LevelVersion{Level: level, Version: api.LatestVersion()}
			results := evaluator.EvaluatePod(version, &pod.ObjectMeta, &pod.Spec)
			if policy.AggregateCheckResults(results).Allowed {
				found.Profile = string(level)
				continue
			}
			for _, result := range results {
				if !result.Allowed {
					objection := result.ForbiddenReason + ": " + result.ForbiddenDetail
					found.Objections[string(level)] = append(found.Objections[string(level)], objection)
				}
			}
		}
		verdicts = append(verdicts, found)
	}
}

// podOf returns the pod that an object is or creates, or nil.
func podOf(kind string, document []byte) (*corev1.PodTemplateSpec, error) {
	switch kind {
	case "Pod":
		var pod corev1.Pod
		err := yaml.UnmarshalStrict(document, &pod)
		return &corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}, err
	case "Deployment":
		var deployment appsv1.Deployment
		err := yaml.UnmarshalStrict(document, &deployment)
		return &deployment.Spec.Template, err
	case "DaemonSet":
		var daemonSet appsv1.DaemonSet
		err := yaml.UnmarshalStrict(document, &daemonSet)
		return &daemonSet.Spec.Template, err
	case "StatefulSet":
		var statefulSet appsv1.StatefulSet
		err := yaml.UnmarshalStrict(document, &statefulSet)
		return &statefulSet.Spec.Template, err
	}
	return nil, nil
}
