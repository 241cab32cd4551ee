-- What wrk sends. Arguments: work (pinned|random), path, host...
-- pinned: thread n keeps to host n, so a kept connection never changes its tenant.
-- random: each request names a random host and closes, so each is a new connection to a random tenant.
local count = 0

function setup(thread)
   count = count + 1
   thread:set("number", count)
end

function init(args)
   local hosts = {}
   for i = 3, #args do hosts[#hosts + 1] = args[i] end
   if args[1] == "pinned" then
      wrk.headers["Host"] = hosts[(number - 1) % #hosts + 1]
      wrk.path = args[2]
      return
   end
   local ready = {}
   for i, host in ipairs(hosts) do
      ready[i] = wrk.format("GET", args[2], {["Host"] = host, ["Connection"] = "close"})
   end
   math.randomseed(os.time() * 31 + number)
   function request() return ready[math.random(#ready)] end
end

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '\nRESULT {"requests": %d, "microseconds": %d, "bytes": %d, "connect": %d, "read": %d, "write": %d, ' ..
      '"status": %d, "timeout": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d}\n',
      summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
