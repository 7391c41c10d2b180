-- Remove what no retention keeps, and what dead nodes left in the directory; how many messages went.
--
-- ARGV: now, highest incarnation given so far, live leases, then keys of heads ({base}:h:{name}) and entries ({base}:d).

local DEVICE_MS = 30 * 86400 * 1000
local AT_ONCE = 1000

local highest, live = tonumber(ARGV[2]), {}
for lease in string.gmatch(ARGV[3], '[^\n]+') do
  live[lease] = true
end

local logs, dead = {}, {}
for i = 4, #ARGV do
  local key = ARGV[i]
  local tag = string.find(key, '}:', 1, true)
  local base, kind, name = string.sub(key, 1, tag), string.sub(key, tag + 2, tag + 2), string.sub(key, tag + 4)
  if kind == 'h' then
    local log = open_whole(base, name)
    log.forgotten = {}
    for owner, cursor in pairs(log.cursors) do
      if owner ~= '' and now / 1000 - cursor.seen > DEVICE_MS then
        log.forgotten[#log.forgotten + 1] = owner
      end
    end
    for _, owner in ipairs(log.forgotten) do
      log.cursors[owner] = nil
    end
    local done = math.min(confirmed(log), now - log.keep_confirmed * 1000)
    drop_through(log, math.max(now - log.keep * 1000, done), AT_ONCE)
    if log.dropped > 0 or #log.forgotten > 0 then
      logs[#logs + 1] = log
    end
  else
    for _, lease in ipairs(redis.call('SMEMBERS', key)) do
      -- A lease that is not live and not yet to be given will never be live again.
      if not live[lease] and tonumber(string.match(lease, '%d+$')) <= highest then
        dead[#dead + 1] = {key, lease}
      end
    end
  end
end

local gone = 0
for i = 1, #logs do
  local log = logs[i]
  for _, owner in ipairs(log.forgotten) do
    redis.call('HDEL', log.head_key, 'c' .. owner)
  end
  if log.dropped > 0 then
    redis.call('LTRIM', log.list_key, log.dropped, -1)
    write_head(log)
    gone = gone + log.dropped
  end
end
for i = 1, #dead do
  redis.call('SREM', dead[i][1], dead[i][2])
end
return gone
