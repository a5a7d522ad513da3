//! Both sides of a handover, over a pair of sockets in one process.

use std::{net::TcpListener, os::fd::OwnedFd, os::unix::net::UnixStream};

use super::{
    Inheritance,
    channel::{Channel, Word},
    listener_key,
};
use crate::pool::Standing;

fn standing() -> Standing {
    Standing {
        address: "10.0.0.1:80".into(),
        draining: true,
        weight: Some(3),
        ..Standing::default()
    }
}

#[test]
fn sockets_and_standings_arrive_as_they_were() {
    let (old, new) = UnixStream::pair().unwrap();
    let sockets: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses: Vec<_> = sockets
        .iter()
        .map(|socket| socket.local_addr().unwrap())
        .collect();
    let sockets = sockets
        .into_iter()
        .map(|socket| (listener_key("a"), OwnedFd::from(socket)));
    let handover = super::Handover {
        sockets: sockets.collect(),
        standings: vec![("main".into(), vec![standing()])],
        found: Vec::new(),
        is_member: false,
    };
    let old = std::thread::spawn(move || {
        let mut channel = Channel::new(old);
        super::successor::say_all(&mut channel, &handover).unwrap();
        let (word, _) = channel.hear().unwrap();
        channel.say(&Word::Yours, &[]).unwrap();
        word
    });
    let mut inheritance = Inheritance::hear(new).unwrap();
    let heard: Vec<_> = inheritance.sockets[&listener_key("a")]
        .iter()
        .map(|socket| socket.local_addr().unwrap())
        .collect();
    assert_eq!(heard, addresses);
    assert_eq!(inheritance.standings["main"], [standing()]);
    inheritance.confirm().unwrap();
    assert_eq!(old.join().unwrap(), Word::Ready);
}

#[test]
fn a_place_is_waited_for_before_the_new_process_serves() {
    let (old, new) = UnixStream::pair().unwrap();
    let old = std::thread::spawn(move || {
        let mut channel = Channel::new(old);
        let handover = super::Handover {
            is_member: true,
            ..super::Handover::default()
        };
        super::successor::say_all(&mut channel, &handover).unwrap();
        let first = channel.hear().unwrap().0;
        channel.say(&Word::Place, &[]).unwrap();
        let second = channel.hear().unwrap().0;
        channel.say(&Word::Yours, &[]).unwrap();
        [first, second]
    });
    let mut inheritance = Inheritance::hear(new).unwrap();
    assert!(inheritance.has_place());
    inheritance.wait_for_place().unwrap();
    inheritance.confirm().unwrap();
    assert_eq!(old.join().unwrap(), [Word::Waits, Word::Ready]);
}

#[test]
fn no_place_is_waited_for_where_the_old_process_has_none_or_is_gone() {
    let (old, new) = UnixStream::pair().unwrap();
    Channel::new(old).say(&Word::All, &[]).unwrap();
    assert!(!Inheritance::hear(new).unwrap().has_place());
    let (old, new) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(old);
    for word in [Word::Member, Word::All] {
        channel.say(&word, &[]).unwrap();
    }
    let mut inheritance = Inheritance::hear(new).unwrap();
    drop(channel);
    assert!(inheritance.wait_for_place().is_err());
}

#[test]
fn words_of_later_versions_are_ignored() {
    let (old, new) = UnixStream::pair().unwrap();
    let later = br#"{"word":"of a later version","x":1}"#;
    use std::io::Write;
    let mut raw = old.try_clone().unwrap();
    raw.write_all(&(later.len() as u32).to_le_bytes()).unwrap();
    raw.write_all(later).unwrap();
    Channel::new(old).say(&Word::All, &[]).unwrap();
    let inheritance = Inheritance::hear(new).unwrap();
    assert!(inheritance.sockets.is_empty() && inheritance.has_predecessor());
}

#[test]
fn a_process_that_ends_in_the_middle_is_noticed() {
    let (old, new) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(old);
    channel.say(&Word::Sockets { keys: Vec::new() }, &[]).unwrap();
    drop(channel);
    let error = Inheritance::hear(new).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_refusal_says_why() {
    let (old, new) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(old);
    channel.say(&Word::All, &[]).unwrap();
    Inheritance::hear(new).unwrap().refuse("no");
    let reason = "no".to_owned();
    assert_eq!(channel.hear().unwrap().0, Word::Refused { reason });
}

#[test]
fn activated_sockets_are_known_by_their_address() {
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = one.local_addr().unwrap();
    let mut inheritance = Inheritance::of_activated(vec![other, one]);
    let any_port = "127.0.0.1:0".parse().unwrap();
    assert!(
        inheritance.take_admin(any_port).is_none(),
        "neither is for any port"
    );
    assert_eq!(inheritance.take_activated(address).len(), 1);
    assert!(inheritance.take_admin(address).is_none(), "taken already");
    assert_eq!(inheritance.activated.len(), 1);
}
