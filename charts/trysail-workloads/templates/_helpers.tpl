{{/* The CRDs, roles and the Lease are single in a cluster, so names do not depend on the release. */}}
{{- define "trysail.name" -}}
trysail-workloads
{{- end }}

{{- define "trysail.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "trysail.name" .) }}
{{- end }}

{{- define "trysail.selectorLabels" -}}
app.kubernetes.io/name: {{ include "trysail.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "trysail.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: trysail
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "trysail.labels" -}}
{{ include "trysail.selectorLabels" . }}
{{ include "trysail.commonLabels" . }}
{{- end }}

{{- define "trysail.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The selection of kinds and controllers, as the manager takes it. */}}
{{- define "trysail.selectionArgs" -}}
- --api={{ .Values.api }}
- --controllers={{ join "," .Values.controllers }}
- --default-topology-spread={{ .Values.defaultTopologySpread }}
{{- end }}

{{/* Security of every container of the chart: the Pod Security Standard "restricted", and nothing writable. */}}
{{- define "trysail.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "trysail.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
The permissions of the controllers that are switched on, as a JSON list of {group, resource, verbs}: entries of
files/controllers.yaml on the same resource become one, verbs sorted.
*/}}
{{- define "trysail.rules" -}}
{{- $data := .Files.Get "files/controllers.yaml" | fromYaml }}
{{- $rules := dict }}
{{- $entries := append .Values.controllers "common" }}
{{- if .Values.defaultTopologySpread }}
{{- range .Values.controllers }}
{{- if (index $data .).spreads }}
{{- $entries = append $entries "spread" }}
{{- end }}
{{- end }}
{{- end }}
{{- range $entries }}
{{- range (index $data .).rules }}
{{- $key := printf "%s/%s" .group .resource }}
{{- $known := dig $key (dict "verbs" list) $rules }}
{{- $verbs := concat $known.verbs .verbs | uniq | sortAlpha }}
{{- $_ := set $rules $key (dict "group" .group "resource" .resource "verbs" $verbs) }}
{{- end }}
{{- end }}
{{- $sorted := list }}
{{- range keys $rules | sortAlpha }}
{{- $sorted = append $sorted (index $rules .) }}
{{- end }}
{{- $sorted | toJson }}
{{- end }}

{{/* The CRDs of the controllers that are switched on, as a JSON list of plural names. */}}
{{- define "trysail.crds" -}}
{{- $data := .Files.Get "files/controllers.yaml" | fromYaml }}
{{- $crds := list }}
{{- range .Values.controllers }}
{{- $crds = concat $crds (index $data .).crds }}
{{- end }}
{{- $crds | uniq | sortAlpha | toJson }}
{{- end }}

{{/* The same by API group, as an object. The group is in the name of a CRD's file. */}}
{{- define "trysail.groups" -}}
{{- $groups := dict }}
{{- range $plural := include "trysail.crds" . | fromJsonArray }}
{{- range $path, $content := $.Files.Glob (printf "files/crds/%s.*.yaml" $plural) }}
{{- $group := base $path | trimPrefix (printf "%s." $plural) | trimSuffix ".yaml" }}
{{- $groups = set $groups $group (append (get $groups $group | default list) $plural) }}
{{- end }}
{{- end }}
{{- $groups | toJson }}
{{- end }}
