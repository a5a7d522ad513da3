//! A gate of lifetimes, and the times that it needs.

use super::*;

fn file(times: &str) -> String {
    format!(
        "{MINIMAL}[cluster]\nname = \"edge\"\nnode = \"a\"\nkey_file = \"key\"\ntakeover = \"address\"\naddresses = [\"10.0.0.9\"]\n\
         interface = \"eth0\"\ngate = \"lifetime\"\n{times}[[cluster.member]]\nname = \"a\"\naddress = \"10.0.0.1:7946\"\n\
         [[cluster.member]]\nname = \"b\"\naddress = \"10.0.0.2:7946\"\n[[cluster.member]]\nname = \"w\"\naddress = \"10.0.0.3:7946\"\n\
         role = \"witness\"\n"
    )
}

#[test]
fn a_lease_has_room_for_the_kernels_seconds() {
    for times in [
        "heartbeat = \"250ms\"\nlease = \"3s\"\nmargin = \"500ms\"\n",
        "heartbeat = \"1s\"\nlease = \"7s\"\nmargin = \"1s\"\n",
    ] {
        let cluster = good(&file(times)).cluster.unwrap();
        assert!(cluster.comes_and_goes("10.0.0.9".parse().unwrap()));
        assert!(!cluster.comes_and_goes("10.0.0.1".parse().unwrap()));
    }
    for (times, key) in [
        ("", "cluster.lease"),
        (
            "heartbeat = \"250ms\"\nlease = \"2990ms\"\nmargin = \"500ms\"\n",
            "cluster.lease",
        ),
        (
            "heartbeat = \"1s\"\nlease = \"6s\"\nmargin = \"1s\"\n",
            "cluster.lease",
        ),
        (
            "heartbeat = \"100ms\"\nlease = \"3s\"\nmargin = \"249ms\"\n",
            "cluster.margin",
        ),
    ] {
        let mistakes = bad(&file(times));
        assert!(
            mistakes.contains(key) && mistakes.contains("lease = \"3s\""),
            "{times}{mistakes}"
        );
    }
}

#[test]
fn a_gate_is_for_an_address_that_moves() {
    let mistakes = bad(&file("").replace("takeover = \"address\"", "takeover = \"bind\""));
    assert!(mistakes.contains("cluster.gate"), "{mistakes}");
}
