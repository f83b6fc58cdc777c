-- SPDX-License-Identifier: Apache-2.0 OR MIT
-- Dissects traces of peerdma in Wireshark and tshark. docs/trace-format.md describes what it reads.
--
-- In Wireshark: copy it into the folder that Help > About > Folders calls "Personal Lua Plugins".
-- tshark -X lua_script:peerdma.lua -r run.pcapng.zst -Y peerdma.finding

local peerdma = Proto("peerdma", "peerdma trace")
local tlp = Proto("tlp", "PCIe Transaction Layer Packet")

local KINDS = {
    [0] = "header", [1] = "transaction", [2] = "finding", [3] = "configuration write",
    [4] = "configuration read", [5] = "register write", [6] = "register read", [7] = "push by a CPU",
    [8] = "unplug", [9] = "plug", [10] = "delay of posted writes", [11] = "fence seen", [12] = "turn",
    [13] = "value from outside", [14] = "test", [15] = "witness", [0xfe] = "gap", [0xff] = "end",
}
local ROUTES = {
    [0] = "none", [1] = "memory", [2] = "through-host-bridge", [3] = "bus-address", [4] = "interrupt",
}
local STATUSES = { [0] = "SC", [1] = "UR", [4] = "CA", [0xff] = "timeout" }
local PURPOSES = {
    [0] = "descriptor", [1] = "data", [2] = "completion-record", [3] = "interrupt", [4] = "virtqueue",
}
local TARGETS = { [0] = "interrupt window", [1] = "RAM", [2] = "memory BAR", [3] = "register BAR" }
local TYPES = { [0x00] = "MRd", [0x20] = "MRd", [0x40] = "MWr", [0x60] = "MWr", [0x04] = "CfgRd0", [0x44] = "CfgWr0" }
local WITNESS = { [0] = "attach", [1] = "detach", [2] = "drain", [3] = "record" }
local RECORDS = {
    [1] = "loaded", [2] = "map", [3] = "unmap", [4] = "sync-for-cpu", [5] = "sync-for-device",
    [8] = "bind", [9] = "unbind", [10] = "gone", [11] = "missed", [16] = "export", [17] = "attach",
    [18] = "detach", [19] = "buffer-map", [20] = "buffer-unmap", [21] = "invalidate", [22] = "pin",
    [23] = "unpin", [24] = "release", [25] = "fence-add", [26] = "fence-signaled",
}
local DIRECTIONS = {
    [0] = "DMA_BIDIRECTIONAL", [1] = "DMA_TO_DEVICE", [2] = "DMA_FROM_DEVICE", [3] = "DMA_NONE",
}
local RESULTS = { [0] = "begins", [1] = "passed", [2] = "failed", [3] = "skipped" }

local f = {
    version = ProtoField.uint8("peerdma.version", "Version"),
    kind = ProtoField.uint8("peerdma.kind", "Kind", base.DEC, KINDS),
    class = ProtoField.uint16("peerdma.class", "Class of the finding"),
    flags = ProtoField.uint32("peerdma.flags", "Flags", base.HEX),
    number = ProtoField.uint64("peerdma.number", "Number of the entry"),
    sequence = ProtoField.uint64("peerdma.sequence", "Number of the first TLP"),
    bytes = ProtoField.uint64("peerdma.bytes", "Bytes"),
    tlps = ProtoField.uint32("peerdma.tlps", "TLPs"),
    limit = ProtoField.uint16("peerdma.limit", "TLPs are cut at multiples of"),
    status = ProtoField.uint8("peerdma.status", "Status", base.DEC, STATUSES),
    route = ProtoField.uint8("peerdma.route", "Route", base.DEC, ROUTES),
    purpose = ProtoField.uint8("peerdma.purpose", "Purpose", base.DEC, PURPOSES),
    target = ProtoField.uint8("peerdma.target", "Target", base.DEC, TARGETS),
    bar = ProtoField.uint8("peerdma.bar", "BAR"),
    from = ProtoField.uint16("peerdma.requester_function", "Requester, by its number"),
    to = ProtoField.uint16("peerdma.target_function", "Target, by its number"),
    at = ProtoField.uint64("peerdma.target_address", "Address at the target", base.HEX),
    offset = ProtoField.uint64("peerdma.target_offset", "Offset in the target", base.HEX),
    digest = ProtoField.uint32("peerdma.digest", "CRC-32C of the data", base.HEX),
    payload = ProtoField.bytes("peerdma.payload", "Data"),
    finding = ProtoField.string("peerdma.finding", "Finding"),
    note = ProtoField.bool("peerdma.note", "Only a note"),
    text = ProtoField.string("peerdma.text", "Text"),
    who = ProtoField.string("peerdma.function", "Function"),
    whose = ProtoField.string("peerdma.target_name", "Target's function"),
    kind_name = ProtoField.string("peerdma.kind_name", "Kind, by its name"),
    route_name = ProtoField.string("peerdma.route_name", "Route, by its name"),
    status_name = ProtoField.string("peerdma.status_name", "Status, by its name"),
    purpose_name = ProtoField.string("peerdma.purpose_name", "Purpose, by its name"),
    number32 = ProtoField.uint32("peerdma.function_number", "Function, by its number"),
    requester = ProtoField.uint32("peerdma.requester_id", "Requester ID", base.HEX),
    address = ProtoField.uint64("peerdma.address", "Address", base.HEX),
    test = ProtoField.string("peerdma.test", "Test"),
    result = ProtoField.uint32("peerdma.result", "Result", base.DEC, RESULTS),
    lost = ProtoField.uint64("peerdma.lost", "Entries that were dropped"),
    count = ProtoField.uint64("peerdma.entries", "Entries"),
    cut = ProtoField.bool("peerdma.cut", "Cut at the size limit"),
    delay = ProtoField.string("peerdma.delay", "Delay"),
    value = ProtoField.uint32("peerdma.value", "Value", base.HEX),
    witness = ProtoField.uint32("peerdma.witness", "Input of the witness", base.DEC, WITNESS),
    clock = ProtoField.uint64("peerdma.guest_time", "The guest's clock, in ns"),
    ticket = ProtoField.uint64("peerdma.ticket", "Ticket"),
    record = ProtoField.uint16("peerdma.record", "Record", base.DEC, RECORDS),
    length = ProtoField.uint64("peerdma.length", "Length"),
    direction = ProtoField.uint8("peerdma.direction", "Direction", base.DEC, DIRECTIONS),
    group = ProtoField.uint64("peerdma.group", "Group", base.HEX),
    buffer = ProtoField.uint64("peerdma.buffer", "dma-buf"),
    pid = ProtoField.uint32("peerdma.pid", "Process"),
    task = ProtoField.string("peerdma.task", "Task"),
    caller = ProtoField.string("peerdma.caller", "Caller, or another text"),
    json = ProtoField.string("peerdma.header", "Header"),
}
peerdma.fields = f

local t = {
    type = ProtoField.uint8("tlp.type", "Format and type", base.HEX, TYPES),
    length = ProtoField.uint32("tlp.length", "Dwords"),
    requester = ProtoField.string("tlp.requester", "Requester ID"),
    tag = ProtoField.uint8("tlp.tag", "Tag", base.HEX),
    first_be = ProtoField.uint8("tlp.first_be", "First DW byte enables", base.HEX, nil, 0x0f),
    last_be = ProtoField.uint8("tlp.last_be", "Last DW byte enables", base.HEX, nil, 0xf0),
    addr = ProtoField.uint64("tlp.addr", "Address", base.HEX),
    completer = ProtoField.string("tlp.completer", "Function"),
    register = ProtoField.uint16("tlp.register", "Register", base.HEX),
}
tlp.fields = t

-- Names of the classes of findings, and of the functions by their numbers, from the header of the file.
local classes, functions = {}, {}

-- What stands for no function, and for no TLP.
local NO_FUNCTION, NO_TLP = 0xffff, UInt64(0xffffffff, 0xffffffff)

-- Adds the number of a function with its name, and the name as a field of its own; nothing where there is none.
local function add_function(tree, number, name, range)
    local value = range:uint()
    if value == NO_FUNCTION then return end
    local known = functions[value]
    local item = tree:add(number, range)
    if known then
        item:append_text(" (" .. known .. ")")
        tree:add(name, range, known)
    end
end

local function bdf(id)
    return string.format("%02x:%02x.%d", bit.rshift(id, 8), bit.band(bit.rshift(id, 3), 0x1f), bit.band(id, 7))
end

-- Dissects a TLP's header; gives what it is, in a few words.
local function header(range, tree)
    local sub = tree:add(tlp, range)
    local kind = range(0, 1):uint()
    sub:add(t.type, range(0, 1))
    local dwords = bit.band(range(2, 2):uint(), 0x3ff)
    if dwords == 0 then dwords = 1024 end
    sub:add(t.length, range(2, 2), dwords)
    local id = bdf(range(4, 2):uint())
    sub:add(t.requester, range(4, 2), id)
    sub:add(t.tag, range(6, 1))
    sub:add(t.last_be, range(7, 1))
    sub:add(t.first_be, range(7, 1))
    local name = TYPES[kind] or string.format("type 0x%02x", kind)
    if bit.band(kind, 0x1f) == 4 then
        local completer = bdf(range(8, 2):uint())
        sub:add(t.completer, range(8, 2), completer)
        sub:add(t.register, range(10, 2))
        return id, string.format("%s %s+0x%x", name, completer, range(10, 2):uint())
    end
    -- The first byte that is enabled.
    local enables, skip = bit.band(range(7, 1):uint(), 0xf), 0
    if enables ~= 0 then
        while bit.band(bit.rshift(enables, skip), 1) == 0 do skip = skip + 1 end
    end
    local wide = range:len() == 16
    local where = wide and range(8, 8) or range(8, 4)
    local address = (wide and where:uint64() or UInt64(where:uint())) + UInt64(skip)
    sub:add(t.addr, where, address)
    return id, name .. " addr=0x" .. address:tohex():gsub("^0+(%x)", "%1")
end

local dissect = {}

dissect[0] = function(range, tree)
    local json = range:raw()
    tree:add(f.json, range, json)
    classes = {}
    local list = json:match('"classes":(%b{})')
    if list then
        for code, name in list:gmatch('"(%d+)":"([^"]*)"') do classes[tonumber(code)] = name end
    end
    functions = {}
    list = json:match('"functions":(%b[])')
    if list then
        local number = 0
        for name in list:gmatch('"name":"([^"]*)"') do
            functions[number] = name
            number = number + 1
        end
    end
    return "header"
end

dissect[1] = function(range, tree, class, flags)
    tree:add(f.sequence, range(0, 8))
    tree:add(f.bytes, range(8, 8))
    tree:add(f.tlps, range(16, 4))
    tree:add(f.limit, range(20, 2))
    tree:add(f.status, range(22, 1))
    tree:add(f.route, range(23, 1))
    tree:add(f.route_name, range(23, 1), ROUTES[range(23, 1):uint()] or "?")
    tree:add(f.status_name, range(22, 1), STATUSES[range(22, 1):uint()] or "?")
    tree:add(f.purpose, range(24, 1))
    tree:add(f.purpose_name, range(24, 1), PURPOSES[range(24, 1):uint()] or "?")
    add_function(tree, f.from, f.who, range(28, 2))
    -- What did not arrive has no target.
    if range(23, 1):uint() ~= 0 then
        local target = range(25, 1):uint()
        tree:add(f.target, range(25, 1))
        if target == 3 then tree:add(f.bar, range(26, 1)) end
        if target >= 2 then add_function(tree, f.to, f.whose, range(30, 2)) end
        tree:add(f.at, range(32, 8))
        if target ~= 0 then tree:add(f.offset, range(40, 8)) end
    end
    if bit.band(flags, 1) ~= 0 then tree:add(f.digest, range(48, 4)) end
    local length = range(27, 1):uint() * 4
    local id, what = header(range(52, length), tree)
    if range:len() > 52 + length then tree:add(f.payload, range(52 + length)) end
    local verdict = ""
    if class ~= 0 then
        local name = classes[class] or tostring(class)
        tree:add(f.finding, name)
        verdict = " [" .. name .. "]"
    end
    local route = range(23, 1):uint()
    local how = route == 0 and (STATUSES[range(22, 1):uint()] or "?") or ROUTES[route]
    return string.format("#%s %s len=%s %s%s", tostring(range(0, 8):uint64()), what,
        tostring(range(8, 8):uint64()), how, verdict), id
end

dissect[2] = function(range, tree, _, flags)
    if range(0, 8):uint64() ~= NO_TLP then tree:add(f.sequence, range(0, 8)) end
    local length = range(8, 2):uint()
    tree:add(f.finding, range(10, length))
    local at = 10 + length
    local name = range(at, 2):uint()
    if name > 0 then tree:add(f.who, range(at + 2, name)) end
    local text = range(at + 2 + name)
    tree:add(f.note, bit.band(flags, 1) == 0)
    tree:add(f.text, text)
    return (bit.band(flags, 1) == 0 and "note: " or "finding: ") .. text:string()
end

local function config(range, tree)
    tree:add(f.value, range(8, 4))
    local id, what = header(range(12, 12), tree)
    return string.format("%s len=%d value=0x%x", what, range(4, 1):uint(), range(8, 4):uint()), id
end
dissect[3], dissect[4] = config, config

local function register(range, tree)
    tree:add(f.address, range(0, 8))
    local length = range(8, 1):uint() * 4
    local id, what = header(range(12, length), tree)
    tree:add(f.payload, range(12 + length))
    return what .. " data=" .. tostring(range(12 + length):bytes()):lower(), id
end
dissect[5], dissect[6] = register, register

local function numbered(range, tree)
    local item, name = tree:add(f.number32, range(0, 4)), functions[range(0, 4):uint()]
    if name then
        item:append_text(" (" .. name .. ")")
        tree:add(f.who, range(0, 4), name)
    end
    if range:len() > 4 then tree:add(f.payload, range(4)) end
    return name or "function " .. range(0, 4):uint()
end
dissect[7], dissect[12], dissect[13] = numbered, numbered, numbered

local function of_requester(range, tree)
    tree:add(f.requester, range(0, 4))
    return bdf(range(0, 4):uint())
end
dissect[8], dissect[9], dissect[11] = of_requester, of_requester, of_requester

dissect[10] = function(range, tree)
    tree:add(f.requester, range(0, 2))
    tree:add(f.delay, range(4))
    return bdf(range(0, 2):uint()) .. ": " .. range(4):string()
end

dissect[14] = function(range, tree, _, flags)
    tree:add(f.test, range)
    tree:add(f.result, flags)
    return range:string() .. " " .. (RESULTS[flags] or "?")
end

-- A record is little-endian, as the guest wrote it.
dissect[15] = function(range, tree, _, flags)
    tree:add(f.witness, flags)
    if flags == 0 then tree:add_le(f.clock, range(0, 8)) end
    if flags ~= 3 then return WITNESS[flags] or "?" end
    tree:add_le(f.ticket, range(0x00, 8))
    tree:add_le(f.clock, range(0x08, 8))
    tree:add_le(f.address, range(0x10, 8))
    tree:add_le(f.length, range(0x18, 8))
    tree:add_le(f.record, range(0x20, 2))
    tree:add(f.direction, range(0x22, 1))
    local id = range(0x24, 4):le_uint()
    tree:add_le(f.requester, range(0x24, 4))
    tree:add_le(f.group, range(0x28, 8))
    tree:add_le(f.buffer, range(0x30, 8))
    tree:add_le(f.pid, range(0x40, 4))
    tree:add(f.task, range(0x48, 16))
    tree:add(f.caller, range(0x58, 40))
    local what = RECORDS[range(0x20, 2):le_uint()] or "?"
    return string.format("%s addr=0x%s len=%s by %s", what, range(0x10, 8):le_uint64():tohex(),
        tostring(range(0x18, 8):le_uint64()), range(0x48, 16):stringz()), id <= 0xffff and bdf(id) or nil
end

dissect[0xfe] = function(range, tree)
    tree:add(f.lost, range(0, 8))
    return tostring(range(0, 8):uint64()) .. " entries were dropped"
end

dissect[0xff] = function(range, tree, _, flags)
    tree:add(f.count, range(0, 8))
    tree:add(f.cut, bit.band(flags, 1) ~= 0)
    return "after " .. tostring(range(0, 8):uint64()) .. " entries"
end

function peerdma.dissector(buffer, packet, root)
    local length = buffer:len()
    if length < 16 then return 0 end
    local tree = root:add(peerdma, buffer())
    packet.cols.protocol = "peerdma"
    local kind, class, flags = buffer(1, 1):uint(), buffer(2, 2):uint(), buffer(4, 4):uint()
    tree:add(f.version, buffer(0, 1))
    tree:add(f.kind, buffer(1, 1))
    tree:add(f.kind_name, buffer(1, 1), KINDS[kind] or ("kind " .. kind))
    if class ~= 0 then
        local item = tree:add(f.class, buffer(2, 2))
        if classes[class] then item:append_text(" (" .. classes[class] .. ")") end
    end
    tree:add(f.flags, buffer(4, 4))
    tree:add(f.number, buffer(8, 8))
    local name = KINDS[kind] or ("kind " .. kind)
    if buffer(0, 1):uint() ~= 1 then
        packet.cols.info = "another version"
        return length
    end
    local body = dissect[kind]
    if not body or (length == 16 and kind ~= 15) then
        packet.cols.info = name
        return length
    end
    local what, id = body(length > 16 and buffer(16) or buffer(8, 0), tree, class, flags)
    packet.cols.info = (kind == 1 or kind == 2) and what or (name .. ": " .. what)
    if id then packet.cols.src = id end
    return length
end
