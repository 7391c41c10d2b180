-- Which of the commands that the other scripts call the user may not call: each with what the server says of it.
--
-- ARGV: now, base. Keys under base are written, and removed again.

local base = ARGV[2]
local hash, list, set, text = base .. ':h:', base .. ':l:', base .. ':d', base .. ':k:'
local calls = {
  {'TIME'}, {'INFO', 'replication'}, {'EXISTS', set},
  {'SET', text, '', 'PX', '1000'}, {'GET', text}, {'DEL', text},
  {'HSET', hash, 'h', ''}, {'HGET', hash, 'h'}, {'HGETALL', hash}, {'PTTL', hash}, {'PEXPIRE', hash, '1000'},
  {'HDEL', hash, 'h'},
  {'RPUSH', list, ''}, {'LLEN', list}, {'LINDEX', list, '0'}, {'LRANGE', list, '0', '0'}, {'LTRIM', list, '1', '0'},
  {'SADD', set, ''}, {'SMEMBERS', set}, {'SREM', set, ''},
}

-- As Redis 7.0, later ones and Valkey say it.
local REFUSALS = {'NOPERM', 'ACL failure', 'The user executing the script'}

local function refused(said)
  for i = 1, #REFUSALS do
    if string.find(said, REFUSALS[i], 1, true) then
      return true
    end
  end
end

local missing = {}
for i = 1, #calls do
  local reply = redis.pcall(unpack(calls[i]))
  local said = type(reply) == 'table' and reply.err
  if said and refused(said) then
    missing[#missing + 1] = {string.lower(calls[i][1]), said}
  end
end
return missing
