-- Argo CD's health of a SelfEvolutionRun (docs/gitops.md). It uses nothing but the base library, which is all that
-- Argo CD gives to a script.
local health = { status = "Progressing", message = "the operator has not reconciled it yet" }

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "being deleted"
  return health
end

local status = obj.status or {}
if status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end

local is = {}
for _, condition in ipairs(status.conditions) do
  is[condition.type] = condition.status == "True"
  if condition.type == "Ready" then
    health.message = condition.reason .. ": " .. condition.message
  end
end

if is.Stalled or is.Failed then
  health.status = "Degraded"
elseif is.Suspended then
  health.status = "Suspended"
elseif is.Ready then
  health.status = "Healthy"
end
return health
