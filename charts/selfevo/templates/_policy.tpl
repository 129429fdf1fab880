{{/* Pieces of the ValidatingAdmissionPolicies. What comes from values is written into CEL as JSON, which CEL reads. */}}

{{/* Parts of a spec that have pods, as JSON; a test compares it with the CRD. */}}
{{- define "selfevo.parts" -}}
{{- list "" "challenger" "rollout" "solver" "verifier" "evaluation" "finetune" "publish" | toJson }}
{{- end }}

{{/* Those of them that have an engine, as JSON; the same test. */}}
{{- define "selfevo.engines" -}}
{{- list "challenger" "rollout" "solver" "verifier" "evaluation" | toJson }}
{{- end }}

{{/* [{field, value}] of one field of the endpoint of all parts' engines, where given. Takes its way, as CEL. */}}
{{- define "selfevo.policy.ofEndpoints" -}}
{{- $ := . -}}
[
{{- range $index, $part := include "selfevo.engines" . | fromJsonArray }}
{{- if $index }}, {{ end }}{'field': 'spec.{{ $part }}.engine.endpoint.{{ $ | replace "?" "" }}', 'value': string(object.spec.?{{ $part }}.?engine.?endpoint.{{ $ }}.orValue(''))}
{{- end -}}
].filter(one, one.value != '')
{{- end }}

{{/* Which requests are checked. A change that leaves spec alone, or switches suspend only, asks for nothing new. */}}
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

{{/* [{field, value}] of one field of all parts' pods, those left out that are not given or are `none`. Takes {path, none}: the
field's name or its way (`a.?b`), and CEL. */}}
{{- define "selfevo.policy.given" -}}
{{- $ := . -}}
[
{{- range $index, $part := include "selfevo.parts" . | fromJsonArray }}
{{- $place := empty $part | ternary "spec.pods" (printf "spec.%s.pods" $part) }}
{{- $optional := empty $part | ternary "spec.?pods" (printf "spec.?%s.?pods" $part) }}
{{- if $index }}, {{ end }}{'field': '{{ $place }}.{{ $.path | replace "?" "" }}', 'value': string(object.{{ $optional }}.?{{ $.path }}.orValue({{ $.none }}))}
{{- end -}}
].filter(one, one.value != string({{ $.none }}))
{{- end }}

{{/* The same of a text. Takes the field's name or way. */}}
{{- define "selfevo.policy.each" -}}
{{- include "selfevo.policy.given" (dict "path" . "none" "''") -}}
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

{{/* Names of variables, in any case of letters, that decide which code is loaded or executed, whom the trainer asks, or
whom it believes: they need an entry of their own. By kinds, because such a list is never complete. */}}
{{- define "selfevo.policy.ownVariables" -}}
{{- $whole := list "PATH" "ENV" "IFS" "CDPATH" "CLASSPATH" "CC" "CXX" "(CUDA|ROCM|HIP)_(HOME|PATH)" "GCONV_PATH" "LOCPATH" "NLSPATH" "HOSTALIASES" "LOCALDOMAIN" "RES_OPTIONS" "GLIBC_TUNABLES" "NETRC" "CURL_HOME" "PROMPT_COMMAND" "PS4" "TRANSFORMERS_CACHE" "(RDMAV|IBV)_DRIVERS" "TORCH_EXTENSIONS_DIR" "HF_(TOKEN_PATH|MODULES_CACHE)" }}
{{- $begin := list "LD_" "DYLD_" "PYTHON" "SHELL" "BASH" "PERL" "RUBY" "NODE_" "_?JAVA_" "JDK_" "GIT_" "PIP_" "UV_" "SSL" "OPENSSL_" "KRB5" "AWS_" "GOOGLE_" "GCE_" "CLOUDSDK_" "AZURE_" "OTEL_" "HUGGINGFACE_" "MODELSCOPE_" "XDG_" "(OMPI|PMIX)_MCA_" "UCX_MODULE" "FI_PROVIDER" "HSA_TOOLS" "ROCP_" "TORCH_FORCE_" "TRITON_(CACHE_MANAGER|OVERRIDE|KERNEL_OVERRIDE|LIB|.*_PATH)" }}
{{- $hold := list "_PROXY$" "_PRELOAD" "_INJECTION" "_PLUGINS?(_|$)" "_CONF_FILE$" "_CA_" "_CERTS?(_|$)" "_ROOTS_FILE" "_ENDPOINT(_|$)" "_(BASE_URL|TRACKING_URI)$" "_(REDIS|REMOTE)_" "USE_MODELSCOPE" "TRUST_REMOTE_CODE" }}
{{- printf "(?i)^((%s)$|%s|.*(%s))" (join "|" $whole) (join "|" $begin) (join "|" $hold) }}
{{- end }}

{{/* Those of a list of {field, value} that are not allowed. Takes {items, allowed, own (a pattern of what needs an entry
of its own, which `*` is not), exact (a pattern of what needs an entry that has it too), key (its name in
policy.allowed), why}. */}}
{{- define "selfevo.policy.refused" -}}
{{- $allowed := .allowed | toJson }}
{{- $remedy := printf "; allowed are %s" (join ", " .allowed | trunc 300) }}
{{- if not .allowed }}
{{- $remedy = "; remove it" }}
{{- else if has "*" .allowed }}
{{- $remedy = printf "; remove it, or ask for an entry of its own in policy.allowed.%s" .key }}
{{- end }}
({{ .items }}).filter(one, !{{ $allowed }}.exists(a,
{{- if .own }} (a != '*' || !one.value.matches({{ .own | toJson }})) &&{{ end }}
{{- if .exact }} (!one.value.matches({{ .exact | toJson }}) || a.matches({{ .exact | toJson }})) &&{{ end }} (a == one.value || a.endsWith('*') && one.value.startsWith(a.substring(0, size(a) - 1)))))
.map(one, {'field': one.field, 'value': one.value, 'why': {{ printf "%s%s" .why $remedy | toJson }}})
{{- end }}

{{/* Requirements of nodes that name a label that is not allowed, each value by itself. `NotIn` and `DoesNotExist` select nodes
that have no such label at all, so that only `*` allows them. Takes {allowed, own}. */}}
{{- define "selfevo.policy.nodeAffinity" -}}
{{- $ := . }}
{{- range $index, $part := include "selfevo.parts" . | fromJsonArray }}
{{- $place := empty $part | ternary "spec.pods" (printf "spec.%s.pods" $part) }}
{{- $optional := empty $part | ternary "spec.?pods" (printf "spec.?%s.?pods" $part) }}
{{- if $index }} + {{ end }}object.{{ $optional }}.?nodeAffinity.orValue([]).filter(i, !(i.?operator.orValue('In') in ['NotIn', 'DoesNotExist'] ? ['(other nodes)'] : (size(i.?values.orValue([])) == 0 ? ['(any)'] : i.values).map(v, i.key + '=' + v)).all(t,
{{ $.allowed | toJson }}.exists(a, (a != '*' || !i.key.matches({{ $.own | toJson }})) && (a == t || a.endsWith('*') && t.startsWith(a.substring(0, size(a) - 1))))))
.map(i, {'field': '{{ $place }}.nodeAffinity', 'value': string(i.key), 'why': {{ printf "which selects nodes that runs may not use; allowed are %s" (join ", " $.allowed | trunc 300) | toJson }}})
{{- end }}
{{- end }}
