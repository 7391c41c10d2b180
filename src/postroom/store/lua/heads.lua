-- The heads of logs.
--
-- ARGV: now, items.

local ITEM = '>I2I2'                   -- base name
local ITEM_BYTES = 4

local items, heads = ARGV[2], {}
local at = 1
while at <= #items do
  local base_bytes, name_bytes = struct.unpack(ITEM, items, at)
  local base_at = at + ITEM_BYTES
  local name_at = base_at + base_bytes
  at = name_at + name_bytes
  local log = open(string.sub(items, base_at, name_at - 1), string.sub(items, name_at, at - 1))
  heads[#heads + 1] = struct.pack('>I8I8I8I8I8', log.epoch, log.last, log.number, log.floor, log.floor_number)
end
return table.concat(heads)
