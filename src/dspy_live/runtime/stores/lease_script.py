"""Slots on the server: how many each process holds, and since when its first call waits for one."""

from __future__ import annotations

from dspy_live.runtime.stores.line import Script

LEASES = Script("""
local key, me, life_told, life_new = KEYS[1], 'h:' .. ARGV[1], ARGV[2], ARGV[3]
local lease, settle, ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local limit, held, wants, waited = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local keeps_place, patient = tonumber(ARGV[11]), tonumber(ARGV[12])

local life, settled, elsewhere, earlier = nil, 0, 0, 0
local since = now - waited
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'life' then life = value
  elseif name == 'settled' then settled = tonumber(value)
  elseif name ~= me then
    local row = numbers(value)
    if row[1] <= now then redis.call('HDEL', key, name)
    else
      elsewhere = elsewhere + row[2]
      if row[3] > 0 and row[4] < since and row[5] > now - keeps_place then earlier = earlier + 1 end
    end
  end
end
if not life and life_told ~= '' then settled = now + settle end
life = life or life_new

local granted = 0
if now >= settled then granted = math.max(0, math.min(wants, limit - elsewhere - held - earlier)) end
held, wants = held + granted, wants - granted
redis.call('HSET', key, 'life', life, 'settled', text(settled),
  me, table.concat({text(now + lease), held, math.min(wants, patient), text(since), text(now)}, ' '))
redis.call('EXPIRE', key, ttl)
return {life, text(math.max(0, settled - now)), granted, elsewhere}
""")
"""Arguments: holder, life, the life of a server that has none, lease, settle, seconds to keep it all, the limit, the
slots that the process holds, how many it wants, the seconds that the first of those has waited, and the seconds for
which a process that has not asked again keeps its place, and how many of the calls wait for a slot where there is none:
the others take no place. Answers how many it got and how many the others hold.

A process whose first call came earlier finds one slot free for it, so that the others don't take each slot anew."""
