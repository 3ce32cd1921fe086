"""A sliding window on the server, of requests and of tokens: what went out, in slices, and what each process holds."""

from __future__ import annotations

from dspy_live.runtime.stores.line import Script

WINDOW = Script("""
local key, me, life_told, life_new = KEYS[1], 'h:' .. ARGV[2], ARGV[3], ARGV[4]
local lease, settle, ttl = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local window, slice = tonumber(ARGV[8]), tonumber(ARGV[9])
local limit = {tonumber(ARGV[10]), tonumber(ARGV[11])}
local capacity = {tonumber(ARGV[12]), tonumber(ARGV[13])}
local heard = {tonumber(ARGV[14]), tonumber(ARGV[15])}
local gone = {tonumber(ARGV[16]), tonumber(ARGV[17])}
local held = {tonumber(ARGV[18]), tonumber(ARGV[19])}
local waited, keeps_place = tonumber(ARGV[20]), tonumber(ARGV[21])
local backs, ages, wants = tonumber(ARGV[22]), tonumber(ARGV[23]), tonumber(ARGV[24])
local known, place = tonumber(ARGV[25]), 26
if ARGV[1] ~= '' then now = tonumber(ARGV[1]) end

local life, settled, due, mine = nil, 0, {0, 0}, nil
local slices, dead, others, since = {}, {0, 0}, {}, now - waited
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  local kind = string.sub(name, 1, 2)
  if name == 'life' then life = value
  elseif name == 'settled' then settled = tonumber(value)
  elseif name == 'due' then due = numbers(value)
  elseif name == me then mine = numbers(value)
  elseif kind == 's:' then
    local row = numbers(value)
    if row[1] + window <= now + 1e-6 then redis.call('HDEL', key, name) else slices[string.sub(name, 3)] = row end
  elseif kind == 'h:' then
    local row = numbers(value)
    if row[1] > now then others[#others + 1] = row
    else
      for u = 1, 2 do dead[u] = dead[u] + row[3 + u] end
      redis.call('HDEL', key, name)
    end
  end
end
if not life and life_told ~= '' then settled = now + settle end
life = life or life_new

local function number_of(at) return string.format('%d', math.floor(at / slice)) end
local function add(at, requests, tokens)
  if at + window <= now or (requests == 0 and tokens == 0) then return end
  local number = number_of(at)
  local row = slices[number] or {at, 0, 0}
  row = {math.max(row[1], at), row[2] + requests, row[3] + tokens}
  slices[number] = row
  redis.call('HSET', key, 's:' .. number, text(row[1]) .. ' ' .. text(row[2]) .. ' ' .. text(row[3]))
end
-- Who died between its turn and the word that it has gone out, went out now at the latest.
add(now, dead[1], dead[2])
add(now, gone[1] - (mine and mine[2] or heard[1]), gone[2] - (mine and mine[3] or heard[2]))
for _ = 1, backs do
  local number, row = ARGV[place], slices[ARGV[place]]
  if row then
    row[3] = math.max(0, row[3] - tonumber(ARGV[place + 1]))
    redis.call('HSET', key, 's:' .. number, text(row[1]) .. ' ' .. text(row[2]) .. ' ' .. text(row[3]))
  end
  place = place + 2
end
for _ = 1, ages do
  add(now - tonumber(ARGV[place]), tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2]))
  place = place + 3
end

local used, waiting, kept, order = {held[1], held[2]}, {0, 0}, {0, 0}, {}
for _, row in ipairs(others) do
  for u = 1, 2 do used[u], waiting[u] = used[u] + row[3 + u], waiting[u] + row[5 + u] end
  if row[6] > 0 and row[8] < since and row[10] > now - keeps_place then kept = {kept[1] + 1, kept[2] + row[9]} end
end
for _, row in pairs(slices) do
  order[#order + 1] = row
  for u = 1, 2 do used[u] = used[u] + row[1 + u] end
end
table.sort(order, function(a, b) return a[1] < b[1] end)

local function wait_for(ahead)
  local wait = math.max(0, settled - now)
  for u = 1, 2 do
    local need = limit[u] and used[u] + ahead[u] - limit[u] * (1 + 1e-9) or 0
    if need > 0 then
      local rounds = math.max(0, math.ceil((need - used[u]) / limit[u]))
      local left, at = need - rounds * limit[u], 0
      for _, row in ipairs(order) do
        if left <= 0 then break end
        left = left - row[1 + u]
        at = row[1] + window - now
      end
      if left > 0 then at = window end
      wait = math.max(wait, rounds * window + at)
    end
    if capacity[u] then wait = math.max(wait, due[u] - (capacity[u] - ahead[u]) * window / limit[u] - now) end
  end
  return wait
end

local granted, again, waits = 0, 0, {}
local ahead, total, head = {0, 0}, {0, 0}, 0
for want = 1, wants do
  local amount = {1, tonumber(ARGV[place + want - 1])}
  local fits = #waits == 0 and total[1] == 0 and now >= settled
  for u = 1, 2 do
    if limit[u] and used[u] + kept[u] + amount[u] > limit[u] * (1 + 1e-9) then fits = false end
    if capacity[u] and due[u] - (capacity[u] - amount[u]) * window / limit[u] > now + 1e-6 then fits = false end
  end
  if fits then
    granted = granted + 1
    for u = 1, 2 do
      used[u], held[u] = used[u] + amount[u], held[u] + amount[u]
      if capacity[u] then due[u] = math.max(due[u], now) + amount[u] * window / limit[u] end
    end
  else
    if total[1] == 0 then again, head = wait_for(amount), amount[2] end
    for u = 1, 2 do total[u], ahead[u] = total[u] + amount[u], waiting[u] + total[u] + amount[u] end
    if want > known or total[1] == 1 then waits[#waits + 1] = text(wait_for(ahead)) else waits[#waits + 1] = '0' end
  end
end

redis.call('HSET', key, 'life', life, 'settled', text(settled), 'due', text(due[1]) .. ' ' .. text(due[2]),
  me, table.concat({text(now + lease), ARGV[16], ARGV[17], text(held[1]), text(held[2]), total[1], text(total[2]),
  text(since), text(head), text(now)}, ' '))
redis.call('EXPIRE', key, ttl)
return {life, number_of(now), granted, text(again), text(used[1]), text(used[2]), table.concat(waits, ' ')}
""")
"""Arguments: the time (empty: the server's), holder, life, the life of a server that has none, lease, settle, seconds
to keep it all, seconds of the window and of a slice; then of requests and of tokens each: the limits and what may go
out at once (empty: none), what has gone out of this process as far as it was heard, what has gone out, what it holds;
the seconds that its first call has waited, those for which a process that does not ask again keeps its place; then how
many there are of: tokens to give back to a slice, amounts that went out some seconds ago, calls that want to go out,
those of them that know how long they wait; and these.

A call that got its turn is held, and counts without an end, until its process says that it has gone out: its minute
begins then, which is later than it did. So no minute has more than the limit, however late a process is woken.
Answers: life, the slice of now, how many got their turn, the seconds until the next one may ask again, the requests
and tokens that count now, and the seconds that each of the others waits at most if nobody gives anything back."""
