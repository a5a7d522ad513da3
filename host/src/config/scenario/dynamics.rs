//! What changes while a simulation runs: events, and backends that come and go with the load.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    super::{
        reader::{Table, Value},
        units::{h, ms, s, show_fine_duration},
    },
    Action, Autoscale, Group, Happening,
    read::{AUTOSCALE, EVENT, group_named, share},
    values::{number_or, refuse, time, time_or},
};

const AT: RangeInclusive<Duration> = Duration::ZERO..=h(24);
const EVERY: RangeInclusive<Duration> = ms(10)..=h(1);
const SIZE: RangeInclusive<u32> = 1..=10_000;
const FACTOR: RangeInclusive<f64> = 0.01..=1000.0;
const STATUS: RangeInclusive<u32> = 500..=599;
const EVENTS_MAX: usize = 1000;

pub(super) fn autoscale(root: &Table<'_>, groups: &[Group]) -> Option<Autoscale> {
    let table = root.take("autoscale")?.table(AUTOSCALE)?;
    let group = group_named(table.require("group").as_ref(), groups);
    let max = table.require("max").and_then(|value| value.whole(SIZE));
    let min = table.whole("min", SIZE, 1);
    let (above, below) = (share(&table, "above", 0.75), share(&table, "below", 0.3));
    if below >= above {
        table.wrong_key("below", format!("expected less than `above`, {above}"));
    }
    if max.is_some_and(|max| max < min) {
        table.wrong_key("max", format!("expected at least `min`, {min}"));
    }
    if let Some(group) = group.and_then(|group| groups.get(group))
        && max.is_some_and(|max| !(min..=max).contains(&group.count))
    {
        table.wrong(format!(
            "{} begins with {} backends, expected `min` to `max`",
            group.name, group.count
        ));
    }
    Some(Autoscale {
        min,
        above,
        below,
        every: time_or(&table, "every", &EVERY, s(5)),
        step: table.whole("step", SIZE, 1),
        delay: time_or(&table, "delay", &AT, s(10)),
        group: group?,
        max: max?,
    })
}

pub(super) fn events(root: &Table<'_>, groups: &[Group]) -> Vec<Happening> {
    let Some(list) = root.take("event") else {
        return Vec::new();
    };
    let items = list.items("an array of tables: [[event]] with two brackets");
    let items = items.unwrap_or_default();
    if items.len() > EVENTS_MAX {
        list.wrong(format!("expected at most {EVENTS_MAX} events"));
    }
    items.iter().filter_map(|item| event(item, groups)).collect()
}

fn event(item: &Value<'_>, groups: &[Group]) -> Option<Happening> {
    let table = item.table(EVENT)?;
    let group = group_named(table.require("group").as_ref(), groups);
    let at = table.require("at").and_then(|value| time(&value, &AT));
    let until = table.take("until").and_then(|value| time(&value, &AT));
    if let (Some(at), Some(until)) = (at, until)
        && until <= at
    {
        table.wrong_key(
            "until",
            format!("expected later than `at`, \"{}\"", show_fine_duration(at)),
        );
    }
    let action = action(&table);
    let count = table.take("count").and_then(|value| value.whole(SIZE));
    let is_of_many = |count: u32| {
        let group = group.and_then(|group| groups.get(group));
        group.is_some_and(|group| count > group.count)
    };
    let is_joining = action == Some(Action::Join);
    if !is_joining && count.is_some_and(is_of_many) {
        let known = group
            .and_then(|group| groups.get(group))
            .map_or(0, |group| group.count);
        table.wrong_key("count", format!("expected at most the group's count, {known}"));
    }
    Some(Happening {
        until,
        count,
        at: at?,
        group: group?,
        action: action?,
    })
}

fn action(table: &Table<'_>) -> Option<Action> {
    let slow = Action::Slow {
        factor: number_or(table, "factor", &FACTOR, 5.0),
    };
    let fail = Action::Fail {
        rate: share(table, "rate", 1.0),
        status: u16::try_from(table.whole("status", STATUS, 503)).unwrap_or(503),
    };
    let actions = [
        slow,
        fail,
        Action::Die,
        Action::Hang,
        Action::Drain,
        Action::Join,
        Action::Leave,
    ];
    let actions = actions.map(|action| (action.name(), action));
    let action = table.require("do")?.choice(&actions)?;
    if !matches!(action, Action::Slow { .. }) {
        refuse(table, &["factor"], "only do = \"slow\" has this key");
    }
    if !matches!(action, Action::Fail { .. }) {
        refuse(table, &["rate", "status"], "only do = \"fail\" has this key");
    }
    Some(action)
}
