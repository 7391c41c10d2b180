-- Pages of logs: of each its head, the number of its first message, the offset before it, and the entries.
--
-- ARGV: now, items.

local ITEM = '>I2I2I7I7I7I7'           -- base name epoch offset limit max_bytes
local ITEM_BYTES = 32

local items = ARGV[2]

-- Where in the list the first entry above a position stands.
local function after(log, epoch, offset)
  local low, high = 0, log.length
  if log.epoch < epoch or (log.epoch == epoch and log.last <= offset) then
    return high
  end
  while low < high do
    local middle = math.floor((low + high) / 2)
    local e, o = struct.unpack('>I5I7', redis.call('LINDEX', log.list_key, middle))
    if e > epoch or (e == epoch and o > offset) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local function page(base, name, epoch, offset, limit, max_bytes)
  local log = open(base, name)
  local first = after(log, epoch, offset)
  local previous = log.floor
  if first > 0 then
    previous = select(2, struct.unpack('>I5I7', redis.call('LINDEX', log.list_key, first - 1)))
  end
  local found = {
    struct.pack('>I8I8I8I8I8I8I8', log.epoch, log.last, log.number, log.floor, log.floor_number,
      log.floor_number + first + 1, previous)
  }
  local at, last, size = first, math.min(first + limit, log.length) - 1, 0
  while at <= last do
    local entries = redis.call('LRANGE', log.list_key, at, math.min(at + 15, last))
    for i = 1, #entries do
      local _, _, _, _, body = struct.unpack(ENTRY, entries[i])
      size = size + body
      if size > max_bytes and #found > 1 then
        return found
      end
      found[#found + 1] = entries[i]
    end
    at = at + 16
  end
  return found
end

local pages = {}
local at = 1
while at <= #items do
  local base_bytes, name_bytes, epoch, offset, limit, max_bytes = struct.unpack(ITEM, items, at)
  local base_at = at + ITEM_BYTES
  local name_at = base_at + base_bytes
  at = name_at + name_bytes
  pages[#pages + 1] = page(string.sub(items, base_at, name_at - 1), string.sub(items, name_at, at - 1),
    epoch, offset, limit, max_bytes)
end
return pages
