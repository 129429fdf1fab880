{{/* Names, labels, images and scope, each defined once. */}}

{{- define "selfevo.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "selfevo.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "selfevo.name" . }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Of what has no namespace: two releases in two namespaces must not meet there. */}}
{{- define "selfevo.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "selfevo.fullname" .) }}
{{- end }}

{{- define "selfevo.selector" -}}
app.kubernetes.io/name: {{ include "selfevo.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "selfevo.labels" -}}
{{ include "selfevo.selector" . }}
{{ include "selfevo.otherLabels" . }}
{{- end }}

{{/* Of the pages. */}}
{{- define "selfevo.uiSelector" -}}
app.kubernetes.io/name: {{ include "selfevo.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: ui
{{- end }}

{{- define "selfevo.uiLabels" -}}
{{ include "selfevo.uiSelector" . }}
{{ include "selfevo.otherLabels" . }}
{{- end }}

{{- define "selfevo.otherLabels" -}}
app.kubernetes.io/part-of: selfevo
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* registry/repository@digest, or :tag. Takes {image, version}. */}}
{{- define "selfevo.reference" -}}
{{- $place := list .image.registry .image.repository | compact | join "/" }}
{{- if .image.digest }}
{{- printf "%s@%s" $place .image.digest }}
{{- else }}
{{- printf "%s:%s" $place (default .version .image.tag) }}
{{- end }}
{{- end }}

{{- define "selfevo.image" -}}
{{- include "selfevo.reference" (dict "image" .Values.image "version" .Chart.AppVersion) }}
{{- end }}

{{- define "selfevo.trainerImage" -}}
{{- include "selfevo.reference" (dict "image" .Values.trainer.image "version" .Chart.AppVersion) }}
{{- end }}

{{- define "selfevo.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "selfevo.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Namespaces whose runs are driven, as a JSON list; empty for all. */}}
{{- define "selfevo.namespaces" -}}
{{- if .Values.scope.allNamespaces }}
{{- if .Values.scope.namespaces }}
{{- fail "scope.allNamespaces is true and scope.namespaces is not empty; give one of them" }}
{{- end }}
{{- list | toJson }}
{{- else }}
{{- default (list .Release.Namespace) .Values.scope.namespaces | uniq | toJson }}
{{- end }}
{{- end }}

{{/* Where `helm test` makes its run. */}}
{{- define "selfevo.testNamespace" -}}
{{- $served := include "selfevo.namespaces" . | fromJsonArray }}
{{- $namespace := default (first (append $served .Release.Namespace)) .Values.tests.namespace }}
{{- if and $served (not (has $namespace $served)) }}
{{- fail (printf "tests.namespace is %s, and the operator does not serve it; name one of %s" $namespace (join ", " $served)) }}
{{- end }}
{{- $namespace }}
{{- end }}

{{/* The rules of deploy/rbac.yaml, which says what each is for; a test holds the two equal. */}}
{{- define "selfevo.rules" -}}
- apiGroups: [selfevo.dev]
  resources: [selfevolutionruns]
  verbs: [get, list, watch]
- apiGroups: [selfevo.dev]
  resources: [selfevolutionruns/status]
  verbs: [patch]
- apiGroups: [selfevo.dev]
  resources: [selfevolutionruns/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [create]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
{{- if .Values.progress.enabled }}
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
{{- end }}
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
{{- if .Values.kueue.readWorkloads }}
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [get, list]
{{- end }}
{{- end }}

{{/* The way to where spans are sent, as rules of a NetworkPolicy's egress. */}}
{{- define "selfevo.tracingEgress" -}}
{{- with .Values.tracing }}
{{- if .endpoint }}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . | int }}}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What is there only while `helm test` runs. */}}
{{- define "selfevo.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: "-5"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}

{{- define "selfevo.testLabels" -}}
app.kubernetes.io/name: {{ include "selfevo.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
app.kubernetes.io/part-of: selfevo
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Something that the policy lets through, for a run that is only tried. Takes {allowed, else}. */}}
{{- define "selfevo.example" -}}
{{- if or (not .allowed) (has "*" .allowed) }}
{{- .else }}
{{- else }}
{{- first .allowed | replace "*" "helm-test" }}
{{- end }}
{{- end }}
