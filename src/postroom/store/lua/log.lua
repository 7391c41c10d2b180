-- Stands before every script: the time, and a log as all of them see it.
--
-- Of each log there are two keys, in the slot of its user or topic (`base` is the prefix and the hash tag):
--   {base}:l:{name}  a list of entries without holes, oldest first (ENTRY, then the body, then sender and headers)
--   {base}:h:{name}  a hash: field "h" the head (HEAD), field "c" and an owner's name a cursor (CURSOR)
-- An entry's number is its place in the list behind `floor_number`, its `previous` the offset of its neighbour.
-- Lua counts in doubles: whole numbers are exact up to 2^53.

local HEAD = '>I5I7I6I7I6I6I6I6c8'     -- epoch last number floor floor_number bytes keep keep_confirmed run
local CURSOR = '>I5I7I6I7I6'           -- epoch offset number attempted seen
local ENTRY = '>I5I7I1c8I4I4'          -- epoch offset live id body_bytes header_bytes
local ENTRY_BYTES = 29
local MONTH = 30 * 86400 * 1000
local SLACK = 60 * 1000

-- Microseconds since 1970: the server's, or what a test hands in.
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local function read_head(log, raw)
  log.raw = raw
  log.epoch, log.last, log.number, log.floor, log.floor_number = 0, 0, 0, 0, 0
  log.bytes, log.keep, log.keep_confirmed, log.run = 0, MONTH, MONTH, nil
  if raw then
    log.epoch, log.last, log.number, log.floor, log.floor_number, log.bytes, log.keep, log.keep_confirmed, log.run =
      struct.unpack(HEAD, raw)
    if log.length == 0 then
      -- The list has expired as a whole.
      log.floor, log.floor_number, log.bytes = log.last, log.number, 0
    end
  elseif log.length > 0 then
    -- Somebody removed the head: what the list tells must do.
    log.epoch, log.last = struct.unpack('>I5I7', redis.call('LINDEX', log.list_key, -1))
    log.number, log.run = log.length, string.rep('\0', 8)
  end
end

local function open(base, name)
  local log = {head_key = base .. ':h:' .. name, list_key = base .. ':l:' .. name, dropped = 0, added = {}}
  local raw = redis.call('HGET', log.head_key, 'h')
  log.length = redis.call('LLEN', log.list_key)
  read_head(log, raw)
  log.first_number, log.first_floor = log.floor_number, log.floor
  return log
end

-- The log with all its cursors, by owner.
local function open_whole(base, name)
  local log = {head_key = base .. ':h:' .. name, list_key = base .. ':l:' .. name, dropped = 0, added = {}}
  local fields = redis.call('HGETALL', log.head_key)
  log.length = redis.call('LLEN', log.list_key)
  log.cursors = {}
  local raw
  for i = 1, #fields, 2 do
    if fields[i] == 'h' then
      raw = fields[i + 1]
    else
      local c = {}
      c.epoch, c.offset, c.number, c.attempted, c.seen = struct.unpack(CURSOR, fields[i + 1])
      log.cursors[string.sub(fields[i], 2)] = c
    end
  end
  read_head(log, raw)
  return log
end

local function write_head(log)
  local raw = struct.pack(HEAD, log.epoch, log.last, log.number, log.floor, log.floor_number, log.bytes,
    log.keep, log.keep_confirmed, log.run)
  if raw ~= log.raw then
    redis.call('HSET', log.head_key, 'h', raw)
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
  return log.length + #log.added - log.dropped
end

-- The oldest entry that is not dropped.
local function oldest(log)
  if log.dropped < log.length then
    return redis.call('LINDEX', log.list_key, log.dropped)
  end
  return log.added[log.dropped - log.length + 1]
end

local function drop(log, entry)
  local _, offset, _, _, body, headers = struct.unpack(ENTRY, entry)
  log.dropped = log.dropped + 1
  log.bytes = math.max(0, log.bytes - body - headers)
  log.floor, log.floor_number = offset, log.floor_number + 1
end

-- Drop what is not above `through`, at most `most` entries.
local function drop_through(log, through, most)
  while most > 0 and count(log) > 0 do
    local entry = oldest(log)
    local _, offset = struct.unpack('>I5I7', entry)
    if offset > through then
      return
    end
    drop(log, entry)
    most = most - 1
  end
end

-- Live on for `ms` at least. Written only where it is due, for a write is replicated and logged.
local function expire(key, ms)
  if redis.call('PTTL', key) < ms then
    redis.call('PEXPIRE', key, string.format('%.0f', ms * 1.25))
  end
end

-- A head outlives its list: a list alone would be a log that forgot how far it had counted.
local function expire_head(log)
  expire(log.head_key, math.max(MONTH, log.keep * 1.5))
end
