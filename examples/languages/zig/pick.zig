//! Sticky sessions in Zig. ../README.md says what it does. The canonical ABI is written by hand, as there is no generator
//! for Zig; no library but its own is needed.
const std = @import("std");
const gpa = std.heap.wasm_allocator;

extern "trimtab:policy/request@0.1.1" fn header(name: [*]const u8, length: usize, result: *[3]usize) void;
extern "trimtab:policy/request@0.1.1" fn tried(index: u32) u32;
extern "trimtab:policy/pool@0.1.1" fn @"active-all"(result: *[2]usize) void;

fn List(comptime T: type) type {
    return extern struct {
        ptr: [*]T,
        len: usize,

        fn slice(self: @This()) []T {
            return self.ptr[0..self.len];
        }
    };
}
const Text = List(u8);

/// The record `snapshot` of wit/picker.wit.
const Snapshot = extern struct {
    generation: u64,
    ids: List(u64),
    addresses: List(Text),
    weights: List(u32),
    ramps: List(u8),
    zones: List(u16),
    tiers: List(u8),
    usable: List(u8),
    labels: List(List([2]Text)),
};

/// Copies of what is needed of the last update.
var weights: []u32 = &.{};
var usable: []u8 = &.{};
/// What the host writes into lives until the call ends.
var arena = std.heap.ArenaAllocator.init(gpa);
var result: extern struct { tag: u32, value: u32 } = undefined;

fn realloc(old: ?[*]u8, old_length: usize, _: usize, length: usize) callconv(.c) ?[*]u8 {
    const new = arena.allocator().alignedAlloc(u8, .@"8", @max(length, 1)) catch @trap();
    if (old) |bytes| @memcpy(new[0..@min(old_length, length)], bytes[0..@min(old_length, length)]);
    return new.ptr;
}

fn configure(_: [*]u8, _: usize) callconv(.c) *anyopaque {
    _ = arena.reset(.free_all);
    result.tag = 0; // fine
    return &result;
}

fn update(snapshot: *Snapshot) callconv(.c) void {
    gpa.free(weights);
    gpa.free(usable);
    weights = gpa.dupe(u32, snapshot.weights.slice()) catch @trap();
    usable = gpa.dupe(u8, snapshot.usable.slice()) catch @trap();
    _ = arena.reset(.free_all);
}

/// Backends are ready that are usable, and not tried before unless all were.
fn isReady(index: usize, looks: bool) bool {
    return usable[index] != 0 and (!looks or tried(@intCast(index)) == 0);
}

/// Whether it matters what was tried.
fn looksAtTried(attempt: u32) bool {
    if (attempt == 0) return false;
    for (0..usable.len) |i| if (isReady(i, true)) return true;
    return false;
}

fn sticky(session: []const u8, looks: bool) ?u32 {
    var ready: u32 = 0;
    for (0..usable.len) |i| ready += @intFromBool(isReady(i, looks));
    if (ready == 0) return null;
    var left = std.hash.Fnv1a_32.hash(session) % ready;
    for (0..usable.len) |i| {
        if (!isReady(i, looks)) continue;
        if (left == 0) return @intCast(i);
        left -= 1;
    }
    return null;
}

fn leastLoaded(looks: bool) ?u32 {
    var column: [2]usize = undefined;
    @"active-all"(&column);
    const active = @as([*]u32, @ptrFromInt(column[0]))[0..column[1]];
    var best: ?usize = null;
    for (0..usable.len) |i| {
        if (!isReady(i, looks)) continue;
        const b = best orelse i;
        if (best == null or @as(u64, active[i]) * weights[b] < @as(u64, active[b]) * weights[i]) best = i;
    }
    return if (best) |b| @intCast(b) else null;
}

fn pick(_: u64, _: u64, _: u64, _: u64, attempt: u32, _: u64) callconv(.c) *anyopaque {
    const name = "x-session";
    var found: [3]usize = undefined;
    header(name, name.len, &found);
    const looks = looksAtTried(attempt);
    const index = if (found[0] & 0xff == 1)
        sticky(@as([*]u8, @ptrFromInt(found[1]))[0..found[2]], looks)
    else
        leastLoaded(looks);
    _ = arena.reset(.retain_capacity);
    result = .{ .tag = @intFromBool(index != null), .value = index orelse 0 };
    return &result;
}

comptime {
    @export(&realloc, .{ .name = "cabi_realloc" });
    @export(&configure, .{ .name = "trimtab:policy/picker@0.1.1#configure" });
    @export(&update, .{ .name = "trimtab:policy/picker@0.1.1#update" });
    @export(&pick, .{ .name = "trimtab:policy/picker@0.1.1#pick" });
}
