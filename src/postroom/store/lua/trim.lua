-- Remove the messages of logs up to an offset.
--
-- ARGV: now, items.

local ITEM = '>I2I2I7'                 -- base name through
local ITEM_BYTES = 11

local items, logs = ARGV[2], {}
local at = 1
while at <= #items do
  local base_bytes, name_bytes, through = struct.unpack(ITEM, items, at)
  local base_at = at + ITEM_BYTES
  local name_at = base_at + base_bytes
  at = name_at + name_bytes
  local log = open(string.sub(items, base_at, name_at - 1), string.sub(items, name_at, at - 1))
  drop_through(log, through, log.length)
  logs[#logs + 1] = log
end
for i = 1, #logs do
  local log = logs[i]
  if log.dropped > 0 then
    redis.call('LTRIM', log.list_key, log.dropped, -1)
    write_head(log)
  end
end
return string.rep('.', #logs)
