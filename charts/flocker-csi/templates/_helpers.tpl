{{/*
The beginning of the names of all objects: the release's name, and the chart's unless that is part of it.
*/}}
{{- define "flocker-csi.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/*
What selects the pods of a component, (list . "controller"). No version and no value is in it: selectors cannot be changed.
*/}}
{{- define "flocker-csi.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/*
The labels of an object, (list . "controller"). Helm adds its own.
*/}}
{{- define "flocker-csi.labels" -}}
{{- $root := index . 0 -}}
{{ include "flocker-csi.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
{{- end -}}

{{/*
A reference to an image, (list .Values.x.image "default tag").
*/}}
{{- define "flocker-csi.imageReference" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end -}}
{{- end -}}

{{/*
The reference to the plugin's image.
*/}}
{{- define "flocker-csi.image" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is not set: build the image with `make image`, push it to a registry of yours and say where it is, for example --set image.repository=registry.example.com/flocker-csi" -}}
{{- end -}}
{{- include "flocker-csi.imageReference" (list .Values.image .Chart.AppVersion) -}}
{{- end -}}

{{/*
The name under which a sidecar leads, as csi-lib-utils makes it of the driver's name.
*/}}
{{- define "flocker-csi.leaseName" -}}
{{- regexReplaceAll "[^a-zA-Z0-9-]" . "-" -}}
{{- end -}}

{{/*
The address and port a container listens at, (port). Brackets are for IPv6, and do no harm to IPv4.
*/}}
{{- define "flocker-csi.address" -}}
[$(POD_IP)]:{{ int . }}
{{- end -}}

{{/*
The environment of a container, (extraEnv of its pod).
*/}}
{{- define "flocker-csi.env" -}}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- with . }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
`off` or `hint`. YAML reads an off without quotes as false.
*/}}
{{- define "flocker-csi.topology" -}}
{{- .Values.flocker.topology | default "off" -}}
{{- end -}}

{{/*
The settings that controller and node share, (list . "directory of the certificates").
*/}}
{{- define "flocker-csi.sharedArgs" -}}
{{- $root := index . 0 -}}
{{- $certificates := index . 1 -}}
{{- $flocker := $root.Values.flocker -}}
{{- if not $flocker.controlService -}}
{{- fail "flocker.controlService is not set: say where Flocker's control service is, for example --set flocker.controlService=https://control.example.com:4523" -}}
{{- end -}}
- {{ printf "--driver-name=%s" $root.Values.driver.name | quote }}
- {{ printf "--control-service=%s" $flocker.controlService | quote }}
- {{ printf "--server-name=%s" $flocker.serverName | quote }}
- {{ printf "--topology=%s" (include "flocker-csi.topology" $root) | quote }}
- {{ printf "--cluster-cert=%s/cluster.crt" $certificates | quote }}
- {{ printf "--user-cert=%s/plugin.crt" $certificates | quote }}
- {{ printf "--user-key=%s/plugin.key" $certificates | quote }}
- {{ printf "--log=%s" $root.Values.log | quote }}
- {{ printf "--log-format=%s" $root.Values.logFormat | quote }}
{{- end -}}

{{/*
How the plugin is watched. It is restarted only when it does not answer at all for a minute, or has lost its socket for good;
a Flocker that is down makes the controller unready, and a node that starts, which holds back an upgrade.
*/}}
{{- define "flocker-csi.probes" -}}
livenessProbe:
  httpGet:
    path: /healthz
    port: health
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: health
  periodSeconds: 5
  timeoutSeconds: 5
# Why it does not start is then in the state of the pod, too.
terminationMessagePolicy: FallbackToLogsOnError
{{- end -}}

{{/*
The liveness probe of a sidecar: fails when it believes that it leads and cannot say so to the API server.
*/}}
{{- define "flocker-csi.sidecarProbe" -}}
livenessProbe:
  httpGet:
    path: /healthz/leader-election
    port: {{ . }}
  initialDelaySeconds: 10
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/*
What no container of the controller may do.
*/}}
{{- define "flocker-csi.restricted" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}
