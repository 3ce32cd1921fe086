"""A budget on the server: what is spent in all, and for each process what it has told and what it has reserved."""

from __future__ import annotations

from dspy_live.runtime.stores.line import Script

BUDGET = Script("""
local key, me, life_told = KEYS[1], 'h:' .. ARGV[1], ARGV[2]
local lease, settle, ttl = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local units = {'cost', 'tokens', 'calls'}
local function told(place) return tonumber(ARGV[place]) end
local total, reserved, mine = {0, 0, 0}, {0, 0, 0}, nil
local life, settled = nil, 0
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'life' then life = value
  elseif name == 'settled' then settled = tonumber(value)
  elseif string.sub(name, 1, 2) == 'h:' then
    local row = numbers(value)
    if name == me then mine = row
    elseif row[1] <= now then redis.call('HDEL', key, name)
    else for u = 1, 3 do reserved[u] = reserved[u] + row[4 + u] end
    end
  else
    for u = 1, 3 do if name == units[u] then total[u] = tonumber(value) end end
  end
end

if not life and life_told ~= '' then settled = now + settle end
if not life then life = life_told ~= '' and life_told or 'first' end
local elsewhere = {reserved[1], reserved[2], reserved[3]}
for u = 1, 3 do
  if life == life_told and total[u] < told(5 + u) then total[u] = told(5 + u) end
  total[u] = total[u] + told(11 + u) - (mine and mine[1 + u] or told(8 + u))
  reserved[u] = reserved[u] + told(14 + u)
end

local grants = {}
for want = 21, #ARGV, 3 do
  local refused = 0
  for u = 1, 3 do
    local limit, amount, taken = tonumber(ARGV[17 + u]), told(want + u - 1), total[u] + reserved[u]
    if refused == 0 and limit and (taken >= limit or (taken > 0 and taken + amount > limit * (1 + 1e-9))) then
      refused = u
    end
  end
  if now < settled then refused = 4 end
  if refused == 0 then
    for u = 1, 3 do reserved[u] = reserved[u] + told(want + u - 1) end
  end
  grants[#grants + 1] = refused
end

local row = {text(now + lease)}
for u = 1, 3 do row[1 + u] = ARGV[11 + u] end
for u = 1, 3 do row[4 + u] = text(reserved[u] - elsewhere[u]) end
redis.call('HSET', key, 'life', life, 'settled', text(settled), me, table.concat(row, ' '),
  'cost', text(total[1]), 'tokens', text(total[2]), 'calls', text(total[3]))
if ttl > 0 then redis.call('EXPIRE', key, ttl) end
return {life, text(math.max(0, settled - now)), table.concat(grants, ' '),
  text(total[1]), text(total[2]), text(total[3]), text(elsewhere[1]), text(elsewhere[2]), text(elsewhere[3])}
""")
"""Arguments: holder, life, lease, settle, ttl; then of cost, tokens and calls each: the totals that the process knows,
what it has spent as far as it was heard, what it has spent, what it has reserved, the limits (empty: none); then the
amounts of each call that wants to be let through. Answers for each 0, or the unit that refuses it (1, 2, 3), or 4 while
the server is asked to wait.

What a process has spent is a sum that only grows, and the server keeps the last one that it was told: an answer that
was lost counts nothing twice. A server that came back empty is first set to the totals that the process knows. A
``reset()`` begins a new life, of which no process knows any total; the life of a process that knows none is empty."""
