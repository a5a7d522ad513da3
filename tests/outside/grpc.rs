//! A gRPC client and server of Google's: each shape of a call is the same through the balancer as without it.

use serde_json::Value;
use tokio::process::Command;
use trimtab_tests::Setup;

use crate::program::{Server, here, install, run, told, tools};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(tools().join("grpc/bin/python"));
    command.arg(here().join("grpc/calls.py")).args(arguments);
    command
}

/// What a client sees of each call to this address.
async fn calls(address: std::net::SocketAddr) -> Value {
    let output = run(&mut program(&["call", &address.to_string()])).await;
    let seen = serde_json::from_slice(&output.stdout);
    seen.unwrap_or_else(|_| panic!("{}", told(&output)))
}

#[tokio::test]
async fn l4_every_shape_of_a_call_is_the_same_as_direct() {
    install("grpc").await;
    // One for each way: a server remembers that a call was cancelled.
    let direct = Server::start(&mut program(&["serve"])).await;
    let behind = Server::start(&mut program(&["serve"])).await;
    let setup = Setup::to(behind.address.to_string()).pool("protocol = \"h2\"");
    let balancer = setup.start().await;
    let expected = calls(direct.address).await;
    let seen = calls(balancer.address).await;
    for (name, call) in expected.as_object().unwrap() {
        assert_eq!(seen[name], *call, "{name}");
    }
    // That both are right, and not only alike.
    let code = |name: &str| seen[name]["code"].as_str().unwrap().to_owned();
    for (name, expected) in [
        ("unary, small", "OK"),
        ("unary, empty", "OK"),
        ("unary, 100 KB", "OK"),
        ("unary, 3 MB", "OK"),
        ("stream from the server", "OK"),
        ("stream from the client", "OK"),
        ("streams both ways", "OK"),
        ("abort with trailers", "FAILED_PRECONDITION"),
        ("abort at once", "PERMISSION_DENIED"),
        ("unknown method", "UNIMPLEMENTED"),
        ("deadline", "DEADLINE_EXCEEDED"),
        ("cancelled at the server", "OK"),
    ] {
        assert_eq!(code(name), expected, "{name}");
    }
    assert_eq!(
        seen["stream from the server"]["messages"]
            .as_array()
            .unwrap()
            .len(),
        50
    );
    assert_eq!(
        seen["abort with trailers"]["messages"].as_array().unwrap().len(),
        1
    );
    // Of three letters, as "yes" has.
    assert_eq!(seen["cancelled at the server"]["messages"][0][0], 3);
}
