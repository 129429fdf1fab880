{{/* Pieces of the ValidatingAdmissionPolicies. What comes from values is written into CEL as JSON, which CEL reads. */}}

{{/* Parts of a spec that have pods, as JSON; a test compares it with the CRD. */}}
{{- define "selfevo.parts" -}}
{{- list "" "challenger" "rollout" "solver" "verifier" "evaluation" "finetune" | toJson }}
{{- end }}

{{/* Which requests are looked at. A change that leaves spec alone, or switches suspend only, asks for nothing new. */}}
{{- define "selfevo.policy.match" -}}
failurePolicy: Fail
matchConstraints:
  resourceRules:
    - apiGroups: [selfevo.dev]
      apiVersions: [v1alpha1]
      operations: [CREATE, UPDATE]
      resources: [selfevolutionruns]
  {{- with include "selfevo.namespaces" . | fromJsonArray }}
  namespaceSelector:
    matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: In
        values:
          {{- toYaml . | nindent 10 }}
  {{- end }}
matchConditions:
  - name: asks-for-something-new
    expression: >-
      request.operation == 'CREATE' || (
      dyn(object).spec.exists(k, k != 'suspend'
      && !(k in dyn(oldObject).spec && dyn(object).spec[k] == dyn(oldObject).spec[k]))
      || dyn(oldObject).spec.exists(k, k != 'suspend' && !(k in dyn(object).spec)))
{{- end }}

{{/* [{field, value}] of one field of all parts' pods, empty ones left out. Takes the field's name. */}}
{{- define "selfevo.policy.each" -}}
[
{{- range $index, $part := include "selfevo.parts" . | fromJsonArray }}
{{- $place := empty $part | ternary "spec.pods" (printf "spec.%s.pods" $part) }}
{{- $optional := empty $part | ternary "spec.?pods" (printf "spec.?%s.?pods" $part) }}
{{- if $index }}, {{ end }}{'field': '{{ $place }}.{{ $ }}', 'value': string(object.{{ $optional }}.?{{ $ }}.orValue(''))}
{{- end -}}
].filter(one, one.value != '')
{{- end }}

{{/* The same of every item of a list or every key of a map. Takes {path, item}; item is CEL over `i`, of `o` where the
field is wanted again as `object.spec...`. */}}
{{- define "selfevo.policy.every" -}}
{{- $ := . }}
{{- range $index, $part := include "selfevo.parts" . | fromJsonArray }}
{{- $place := empty $part | ternary "spec.pods" (printf "spec.%s.pods" $part) }}
{{- $optional := empty $part | ternary "spec.?pods" (printf "spec.?%s.?pods" $part) }}
{{- if $index }} + {{ end }}object.{{ $optional }}.{{ $.path }}.orValue({{ $.empty }}).map(i, {'field': '{{ $place }}.{{ $.path | replace "?" "" }}', 'value': string({{ $.item | replace "@" (printf "object.%s.%s" $place ($.path | replace "?" "")) }})})
{{- end }}
{{- end }}

{{/* Those of a list of {field, value} that are not allowed. Takes {items, allowed, own (a pattern of what needs an entry
of its own), key (its name in policy.allowed), why}. */}}
{{- define "selfevo.policy.refused" -}}
{{- $allowed := .allowed | toJson }}
{{- $remedy := printf "; allowed are %s" (join ", " .allowed | trunc 300) }}
{{- if not .allowed }}
{{- $remedy = "; remove it" }}
{{- else if has "*" .allowed }}
{{- $remedy = printf "; remove it, or ask for an entry of its own in policy.allowed.%s" .key }}
{{- end }}
({{ .items }}).filter(one, !{{ $allowed }}.exists(a,
{{- if .own }} (a != '*' || !one.value.matches({{ .own | toJson }})) &&{{ end }} (a == one.value || a.endsWith('*') && one.value.startsWith(a.substring(0, size(a) - 1)))))
.map(one, {'field': one.field, 'value': one.value, 'why': {{ printf "%s%s" .why $remedy | toJson }}})
{{- end }}
