-- SPDX-License-Identifier: MPL-2.0

-- The action lua.apikeys asks an edge whether a request may pass:
--
--     http-request lua.apikeys http://127.0.0.1:9090/auth
--
-- If so, txn.apikeys_verdict is 200, the key is gone from the request, and the identity
-- headers say who presented it. Else the client has its answer.

local patience = 2000 -- milliseconds: the edge waits for the server for one second

local identity = {
	"x-apikey-role", "x-apikey-key-id", "x-apikey-version", "x-apikey-scopes",
	"x-apikey-state", "x-apikey-ends", "x-apikey-code",
}

local credentials = { "authorization", "x-api-key" }

-- What is about the connection or the body of the client's request is no part of the
-- question; nor is what this script says itself.
local own = {
	["host"] = true, ["content-length"] = true, ["transfer-encoding"] = true, ["expect"] = true,
	["connection"] = true, ["keep-alive"] = true, ["te"] = true, ["trailer"] = true, ["upgrade"] = true,
	["accept-encoding"] = true,
	["x-original-method"] = true, ["x-original-uri"] = true, ["x-real-ip"] = true,
}

local reasons = {
	[401] = "Unauthorized", [403] = "Forbidden", [429] = "Too Many Requests", [503] = "Service Unavailable",
}

local told = { "www-authenticate", "x-apikey-code", "retry-after" }

local function first(values)
	return values and values[0] or nil
end

-- HAProxy lets control characters through. The edge would not read the question at all.
local function odd(headers)
	for _, values in pairs(headers) do
		for i = 0, #values do
			if values[i]:find("[\0-\8\10-\31\127]") then
				return true
			end
		end
	end
	return false
end

-- Headers of a request come as tables that begin at 0, the client wants such that begin
-- at 1.
local function question(txn)
	local headers = {}
	for name, values in pairs(txn.http:req_get_headers()) do
		if not own[name] then
			local list = {}
			for i = 0, #values do
				list[i + 1] = values[i]
			end
			headers[name] = list
		end
	end
	headers["x-original-method"] = { txn.f:method() }
	headers["x-original-uri"] = { txn.f:pathq() }
	headers["x-real-ip"] = { txn.f:src() }
	return headers
end

local function refuse(txn, status, headers)
	local reply = txn:reply()
	reply:set_status(status, reasons[status])
	reply:add_header("content-type", "application/json")
	reply:add_header("cache-control", "no-store")
	for _, name in ipairs(told) do
		local value = first(headers[name])
		if value then
			reply:add_header(name, value)
		end
	end
	reply:set_body('{"code":"' .. (first(headers["x-apikey-code"]) or "UNAVAILABLE") .. '"}')
	txn:done(reply)
end

core.register_action("apikeys", { "http-req" }, function(txn, url)
	if odd(txn.http:req_get_headers()) then
		return refuse(txn, 403, { ["x-apikey-code"] = { [0] = "AMBIGUOUS_REQUEST" } })
	end
	-- A proxy takes out what Connection names, the identity too, and what Trailer names
	-- comes after the question.
	for _, header in ipairs({ "connection", "trailer" }) do
		local lists = txn.http:req_get_headers()[header]
		for i = 0, lists and #lists or -1 do
			local names = lists[i]:lower():gsub("[_.]", "-")
			if names:find("x-apikey-", 1, true) or names:find("x-api-key", 1, true) or names:find("authorization", 1, true) then
				return refuse(txn, 403, { ["x-apikey-code"] = { [0] = "AMBIGUOUS_REQUEST" } })
			end
		end
	end

	local answer = core.httpclient():get { url = url, headers = question(txn), timeout = patience }
	local headers = answer and answer.headers or {}
	local status = answer and answer.status or 503
	if status ~= 200 then
		-- Whatever is no verdict, none at all included, is no refusal either.
		if not reasons[status] then
			status, headers = 503, { ["retry-after"] = { [0] = "1" } }
		end
		return refuse(txn, status, headers)
	end
	for _, name in ipairs(credentials) do
		txn.http:req_del_header(name)
	end
	for _, name in ipairs(identity) do
		txn.http:req_del_header(name)
		local value = first(headers[name])
		if value and value ~= "" then
			txn.http:req_set_header(name, value)
		end
	end
	local ends = first(headers["x-apikey-ends"])
	if ends and ends ~= "" then
		txn:set_var("txn.apikeys_ends", ends)
	end
	txn:set_var("txn.apikeys_verdict", 200)
end, 1)
