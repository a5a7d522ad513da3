//! `[peers]`, and what has to fit together among its keys.

use std::{net::SocketAddr, ops::RangeInclusive, path::Path, time::Duration};

use super::{
    super::{
        LoadView, NamedFile, Peers, addresses,
        names::Unique,
        reader::{Keys, Table, Value},
        units::{m, ms, s, show_duration},
    },
    file_path,
};

pub(in super::super) const PEERS: Keys = &["listen", "key_file", "others", "interval", "stale_after"];

const INTERVAL: RangeInclusive<Duration> = ms(10)..=s(10);
const STALE_AFTER: RangeInclusive<Duration> = ms(30)..=m(1);
/// One that is lost, and one that is late, make no load stale.
const INTERVALS_MIN: u32 = 3;
/// Each is told everything by each other.
const OTHERS_MAX: usize = 64;

/// The table, if it is there.
pub(super) fn peers(root: &Table<'_>, directory: &Path) -> Option<Peers> {
    let value = root.take("peers")?;
    let table = value.table(PEERS)?;
    let listen = table.require("listen").and_then(|value| socket(&value));
    let key = table.require("key_file").and_then(|value| {
        let path = file_path(value.text()?, &value, directory)?;
        Some(NamedFile::new(path, value.mistake("")))
    });
    let others = match root.take("fleet") {
        Some(_) => table.take("others"),
        None => table.require("others"),
    };
    let others = others.map_or(Some(Vec::new()), |value| others_in(&value));
    let interval = table.duration("interval", INTERVAL, ms(50));
    // As for a check's timeout: the default follows.
    let least = interval * INTERVALS_MIN;
    let stale_after = table.duration("stale_after", STALE_AFTER, s(1).max(least));
    if stale_after < least {
        let message = format!("expected at least three intervals, \"{}\"", show_duration(least));
        table.wrong_key("stale_after", message);
    }
    Some(Peers {
        listen: listen?,
        key: key?,
        others: others?,
        interval,
        stale_after,
    })
}

fn socket(value: &Value<'_>) -> Option<SocketAddr> {
    let address = value.parsed(addresses::listen)?;
    if address.port() == 0 || address.ip().is_unspecified() {
        return value.expected("an address that the others can send to");
    }
    Some(address)
}

fn others_in(value: &Value<'_>) -> Option<Vec<SocketAddr>> {
    let items = value.items("a list of addresses, like [\"10.0.0.2:7947\"]")?;
    if !(1..=OTHERS_MAX).contains(&items.len()) {
        return value.expected(format!("1 to {OTHERS_MAX} addresses"));
    }
    let mut unique = Unique::new("address");
    let mut found = Vec::new();
    for item in &items {
        if let Some(address) = socket(item)
            && unique.claim(address, item)
        {
            found.push(address);
        }
    }
    (found.len() == items.len()).then_some(found)
}

/// Whose load a pool's policy sees: the peers' too, where there are any.
pub(super) fn load_view(table: &Table<'_>, has_peers: bool) -> LoadView {
    let choices = [("node", LoadView::Node), ("cluster", LoadView::Cluster)];
    let default = match has_peers {
        true => LoadView::Cluster,
        false => LoadView::Node,
    };
    let chosen = table.choice("load_view", &choices, default);
    if chosen == LoadView::Cluster && !has_peers {
        let message = "needs the table [peers], which says who tells this node its load";
        table.wrong_key("load_view", message);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::super::Config;
    use crate::config::LoadView;

    const POOL: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = [{ pool = \"shop\" }]\n[pool.shop]\nbackends = [\"10.0.0.1:80\"]\n";
    const PEERS: &str = "[peers]\nlisten = \"10.0.0.1:7947\"\nkey_file = \"peers.key\"\n";

    fn parse(text: &str) -> Result<Config, String> {
        let parsed = Config::parse(text, "own.toml", std::path::Path::new("/etc/trimtab"));
        parsed.map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn pools_see_the_load_of_all_where_there_are_peers() {
        let view = |text: &str| parse(text).unwrap().pools["shop"].load_view;
        let peers = format!("{PEERS}others = [\"10.0.0.2:7947\"]\n");
        assert_eq!(view(POOL), LoadView::Node);
        assert_eq!(view(&format!("{POOL}{peers}")), LoadView::Cluster);
        assert_eq!(
            view(&format!("{POOL}load_view = \"node\"\n{peers}")),
            LoadView::Node
        );
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (more, told) in [
            ("load_view = \"cluster\"\n".to_owned(), "needs the table [peers]"),
            (PEERS.to_owned(), "peers.others"),
            (format!("{PEERS}others = []\n"), "1 to 64 addresses"),
            (
                format!("{PEERS}others = [\"10.0.0.2:7947\", \"10.0.0.2:7947\"]\n"),
                "10.0.0.2:7947",
            ),
            (
                format!("{PEERS}others = [\"0.0.0.0:7947\"]\n"),
                "an address that the others can send to",
            ),
            (
                format!("{PEERS}others = [\"10.0.0.2:7947\"]\ninterval = \"1s\"\nstale_after = \"2s\"\n"),
                "at least three intervals, \"3s\"",
            ),
        ] {
            let error = parse(&format!("{POOL}{more}")).expect_err(&more);
            assert!(error.contains(told), "{more}\n{error}");
        }
    }
}
