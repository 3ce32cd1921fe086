"""Who runs a call that several processes ask at once, and what came of it."""

from __future__ import annotations

from dspy_live.runtime.stores.line import Script

FLIGHT = Script("""
local key, act, mine, follows = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local lease, kept, body = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local row = redis.call('HMGET', key, 'leader', 'expires')
local leader, alive = row[1], row[1] and tonumber(row[2]) > now

local function lead()
  redis.call('HSET', key, 'leader', mine, 'expires', text(now + lease))
  redis.call('EXPIRE', key, math.ceil(lease) + 1)
  return {'lead', ''}
end

if act == 'beat' then
  if not leader or leader == mine then lead() end
  return {'lead', ''}
end
if act == 'ask' then
  local result = follows ~= '' and redis.call('GET', key .. ':' .. follows)
  if result then return {'result', result} end
  if alive and leader ~= mine then return {'follow', leader} end
  return lead()
end
if act == 'done' then redis.call('SET', key .. ':' .. mine, body, 'PX', kept) end
if leader == mine then redis.call('DEL', key) end
return {act, ''}
""")
"""Arguments: ``ask``, ``beat``, ``done`` or ``left``, the name of this flight, that of the flight it follows, lease,
the milliseconds for which a result is kept for those that follow, and the result.

A result is kept under the name of its flight: those that asked before it was there get it, those that come later don't.
"""
