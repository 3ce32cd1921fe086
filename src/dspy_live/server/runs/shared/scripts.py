"""Runs on the server: of each a hash, a stream of its frames, and who reads it. All servers find it by its id.

A run's hash has its owner (the process that runs it), the numbers of its first and last frame, its reader and how far
that one has read, its state as ``GET /runs/{id}`` shows it, and ``over``. An entry of the stream holds some frames; its
id is the number of the last of them, so that an entry that was told twice can't be there twice.
"""

from __future__ import annotations

from dspy_live.runtime.stores.line import Script

TELL = Script("""
local key, events = KEYS[1], KEYS[1] .. ':events'
local holder, from, to, frames = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local anew, state, over, paused, takes = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local owner_key, name, keep, most, prefix = ARGV[10], ARGV[11], ARGV[12], tonumber(ARGV[13]), ARGV[14]
local row = redis.call('HMGET', key, 'last', 'first', 'bytes', 'reader', 'reader_at', 'read', 'seen', 'stop')
local last, first, bytes = tonumber(row[1]), tonumber(row[2] or 1), tonumber(row[3] or 0)
local reader, reader_at = row[4] or '', row[5] or ''
if anew == '' and from > (last or 0) + 1 then return {'unknown', 0, '', 0, '0', ''} end
if last and from <= last and frames ~= '' then return {'heard', last, '', 0, '0', ''} end

if from ~= (last or 0) + 1 then
  redis.call('DEL', events)
  first, bytes = from, 0
end
if frames ~= '' then
  redis.call('XADD', events, to .. '-0', 'from', from, 'frames', frames)
  bytes = bytes + #frames
  while bytes > most do
    local oldest = redis.call('XRANGE', events, '-', '+', 'COUNT', 2)
    if #oldest < 2 or tonumber(string.match(oldest[1][1], '%d+')) > tonumber(ARGV[16]) then break end
    redis.call('XDEL', events, oldest[1][1])
    bytes, first = bytes - #oldest[1][2][4], tonumber(oldest[2][2][2])
  end
end

if reader_at ~= '' and (frames ~= '' or over ~= '' or takes ~= '') then
  redis.call('PUBLISH', prefix .. 'to:' .. reader_at, 'run ' .. ARGV[15])
end
if takes ~= '' then reader, reader_at = takes, '' end
redis.call('HSET', key, 'owner', holder, 'key', owner_key, 'last', to, 'first', first, 'bytes', bytes, 'paused', paused,
  'over', over, 'reader', reader, 'reader_at', reader_at, 'knows', reader)
if state ~= '' then redis.call('HSET', key, 'state', state) end
redis.call('PEXPIRE', key, keep)
redis.call('PEXPIRE', events, keep)
redis.call('SET', prefix .. 'server:' .. holder, '1', 'PX', ARGV[17])
if name ~= '' then
  if last then redis.call('PEXPIRE', name, keep) else redis.call('SET', name, ARGV[15], 'PX', keep) end
end
return {'told', to, reader, tonumber(row[6] or 0), text(now - tonumber(row[7] or 0)), row[8] or ''}
""")
"""Arguments: holder; the numbers of the first and the last frame that is told, and the frames; ``1`` where what comes
before may be missing; the state, empty where it has not changed; ``1`` for a run that is over, and for one that waits
for its reader; a reader of the owner's own that takes over, or nothing; the API key's name; the key of the client's
name for the run, or nothing; the milliseconds for which all is kept; the bytes of frames that are kept of those that a
reader has been given; the prefix; the run's id; the last number that a reader has been given; the milliseconds for
which the holder counts as alive.

Answers ``told`` with the last number, the reader and how far it has read and how long ago it was heard of, and whether
somebody has stopped the run; ``heard`` with the last number, where some of these frames were told before; ``unknown``
where the server has lost what came before."""

LOOK = Script("""
local key, who, act, seq, holder, prefix = KEYS[1], ARGV[1], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local me, most = ARGV[2], tonumber(ARGV[7])
if ARGV[8] ~= '' and redis.call('EXISTS', key) == 0 then
  local named = redis.call('GET', ARGV[8])
  if named then key = prefix .. 'run:' .. named end
end
local row = redis.call('HMGET', key, 'key', 'owner', 'first', 'last', 'over', 'state', 'reader', 'reader_at', 'paused',
  'knows')
if row[1] ~= who then
  local began = redis.call('GET', prefix .. 'began')
  local settled = began and now - tonumber(began) >= tonumber(ARGV[9])
  return {'none', (row[1] or settled) and 1 or 0}
end
local id, owner, reader = string.sub(key, #prefix + 5), row[2], row[7]
local alive = redis.call('EXISTS', prefix .. 'server:' .. owner)
local function ring(holder) redis.call('PUBLISH', prefix .. 'to:' .. holder, 'run ' .. id) end

if act == 'take' then
  if row[8] ~= '' and row[8] ~= holder then ring(row[8]) end
  reader = me
  redis.call('HSET', key, 'reader', me, 'reader_at', holder, 'read', ARGV[4], 'seen', text(now))
  ring(owner)
elseif act == 'go' and reader == me then
  redis.call('HSET', key, 'read', ARGV[4], 'seen', text(now))
  if row[9] ~= '' or row[10] ~= me then ring(owner) end
elseif act == 'leave' and reader == me then
  reader = ''
  redis.call('HSET', key, 'reader', '', 'reader_at', '')
  ring(owner)
elseif act == 'stop' and row[5] == '' and alive == 1 then
  redis.call('HSET', key, 'stop', '1')
  ring(owner)
end

local from, to, frames = 0, 0, {}
if most > 0 then
  local size = 0
  for _, entry in ipairs(redis.call('XRANGE', key .. ':events', text(seq + 1) .. '-0', '+', 'COUNT', 32)) do
    if size >= most then break end
    if from == 0 then from = tonumber(entry[2][2]) end
    to = tonumber(string.match(entry[1], '%d+'))
    frames[#frames + 1] = entry[2][4]
    size = size + #entry[2][4]
  end
end
local knows = row[10] == me and me ~= '' and 1 or 0
return {'run', id, alive, tonumber(row[3]), tonumber(row[4]), row[5], row[6] or '', reader, knows, from, to,
  table.concat(frames)}
""")
"""Arguments: the API key's name; the reader; ``look``, ``take`` (read from now on), ``go`` (on reading), ``leave`` or
``stop``; the last number that was read; holder; the prefix; about how many bytes of frames are wanted; the key of a
client's name, which counts where there is no run of that id; the seconds that all have to tell a server that came back
empty what they have.

Answers ``none``, also for another key's run, and 1 unless it may be that it was not told yet; or ``run`` with its id,
whether its owner lives, the first and the last number, ``1`` if it is over, its state, its reader, whether its owner
has heard of this reader, and the frames after that number: the first one's number, the last one's, and all."""

BEAT = Script("""
local began = redis.call('GET', KEYS[1])
if not began then
  began = text(now)
  redis.call('SET', KEYS[1], began)
end
redis.call('SET', ARGV[1], '1', 'PX', ARGV[2])
return {began}
""")
"""Says that a process lives, by its key and for so many milliseconds; answers since when the server keeps runs: a time
that changes when it has come back empty."""

PUBLISH = Script("""
return {redis.call('PUBLISH', KEYS[1], ARGV[1])}
""")
"""Tells all servers something; answers how many they are."""
