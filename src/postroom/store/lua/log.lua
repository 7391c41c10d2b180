-- Stands before every script: the time, and a log as all of them see it.
--
-- Of each log there are two keys, in the slot of its user or topic (`base` is the prefix and the hash tag):
--   {base}:l:{name}  a list of entries without holes, oldest first (ENTRY, then the body, then sender and headers)
--   {base}:h:{name}  a hash: field "h" the head (HEAD), field "c" and an owner's name a cursor (CURSOR)
-- An entry's number is its place in the list behind `floor_number`, its `previous` the offset of its neighbour.
-- Lua counts in doubles: whole numbers are exact up to 2^53.

local call, pack, unpack_from, sub = redis.call, struct.pack, struct.unpack, string.sub
local HEAD = '>I5I7I6I7I6I6I7I6I6c8'   -- epoch last number floor floor_number bytes since keep keep_confirmed run
local CURSOR = '>I5I7I6I7I6'           -- epoch offset number attempted seen
local ENTRY = '>I5I7I1c8I4I4'          -- epoch offset live id body_bytes header_bytes
local MONTH = 30 * 86400 * 1000
local SLACK = 60 * 1000

-- Microseconds since 1970: the server's, or what a test hands in.
local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- A log by its head. `since`: no entry is older. Every field is named at once: a table that grows costs twice as much.
local function log_from(head_key, list_key, raw, length)
  local epoch, last, number, floor, floor_number, bytes, since, keep, keep_confirmed, run =
    0, 0, 0, 0, 0, 0, 0, MONTH, MONTH, nil
  if raw then
    epoch, last, number, floor, floor_number, bytes, since, keep, keep_confirmed, run = unpack_from(HEAD, raw)
    if length == 0 then
      -- The list has expired as a whole, or is empty.
      floor, floor_number, bytes = last, number, 0
    end
  elseif length > 0 then
    -- Somebody removed the head: what the list tells must do.
    epoch, last = unpack_from('>I5I7', call('LINDEX', list_key, -1))
    number, run = length, string.rep('\0', 8)
  end
  return {
    head_key = head_key, list_key = list_key, raw = raw, length = length, dropped = 0, added = 0,
    epoch = epoch, last = last, number = number, floor = floor, floor_number = floor_number, bytes = bytes,
    since = since, keep = keep, keep_confirmed = keep_confirmed, run = run,
    first_number = floor_number, first_floor = floor, entries = false, cursors = false, aged = false, ids = false
  }
end

local function open(base, name)
  local head_key, list_key = base .. ':h:' .. name, base .. ':l:' .. name
  return log_from(head_key, list_key, call('HGET', head_key, 'h'), call('LLEN', list_key))
end

-- The log with all its cursors, by owner.
local function open_whole(base, name)
  local head_key, list_key = base .. ':h:' .. name, base .. ':l:' .. name
  local fields = call('HGETALL', head_key)
  local cursors, raw = {}, nil
  for i = 1, #fields, 2 do
    if fields[i] == 'h' then
      raw = fields[i + 1]
    else
      local epoch, offset, number, attempted, seen = unpack_from(CURSOR, fields[i + 1])
      cursors[sub(fields[i], 2)] =
        {epoch = epoch, offset = offset, number = number, attempted = attempted, seen = seen}
    end
  end
  local log = log_from(head_key, list_key, raw, call('LLEN', list_key))
  log.cursors = cursors
  return log
end

local function write_head(log)
  local raw = pack(HEAD, log.epoch, log.last, log.number, log.floor, log.floor_number, log.bytes, log.since,
    log.keep, log.keep_confirmed, log.run)
  if raw ~= log.raw then
    call('HSET', log.head_key, 'h', raw)
  end
end

-- The offset up to which every owner has confirmed.
local function confirmed(log)
  local lowest
  for _, cursor in pairs(log.cursors) do
    if not lowest or cursor.offset < lowest then
      lowest = cursor.offset
    end
  end
  return lowest or 0
end

-- How many messages the log has, with what this call adds and without what it drops.
local function count(log)
  return log.length + log.added - log.dropped
end

-- The oldest entry that is not dropped.
local function oldest(log)
  if log.dropped < log.length then
    return call('LINDEX', log.list_key, log.dropped)
  end
  return log.entries[log.dropped - log.length + 1]
end

local function drop(log, entry)
  local _, offset, _, _, body, headers = unpack_from(ENTRY, entry)
  log.dropped = log.dropped + 1
  log.bytes = math.max(0, log.bytes - body - headers)
  log.floor, log.floor_number, log.since = offset, log.floor_number + 1, offset
end

-- Drop what is not above `through`, at most `most` entries.
local function drop_through(log, through, most)
  while most > 0 and count(log) > 0 do
    local entry = oldest(log)
    local _, offset = unpack_from('>I5I7', entry)
    if offset > through then
      return
    end
    drop(log, entry)
    most = most - 1
  end
end

-- Live on for `ms` at least. Written only where it is due, for a write is replicated and logged.
local function expire(key, ms)
  if call('PTTL', key) < ms then
    call('PEXPIRE', key, string.format('%.0f', ms * 1.25))
  end
end

-- A head outlives its list: a list alone would be a log that forgot how far it had counted.
local function expire_head(log)
  expire(log.head_key, math.max(MONTH, log.keep * 1.5))
end
