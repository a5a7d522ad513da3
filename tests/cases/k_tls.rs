//! K: TLS. Most is in `e2e/proxy/tls`.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use trimtab_tests::{Balancer, Client, DEADLINE, Directory, Origin, Setup, tls::Authority, within};

#[tokio::test]
async fn k06_early_data_is_not_taken() {
    let origin = Origin::start("a").await;
    let authority = Authority::new();
    let directory = Directory::new();
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", signed.cert + &signed.key);
    let setup = Setup::to(origin.address()).listener("tls = { certificates = [{ cert = \"shop.pem\" }] }");
    let balancer = Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let mut config = authority.trusted(&["http/1.1"], None);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let connector = TlsConnector::from(config.clone());
    for round in 0..3 {
        let stream = TcpStream::connect(balancer.address).await.unwrap();
        let shaking = connector.connect("shop.test".try_into().unwrap(), stream);
        let mut client = Client::from(within("a handshake", DEADLINE, shaking).await.unwrap());
        assert_eq!(client.get("/").await.status, 200);
        let session = client.stream.get_ref().1;
        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        assert_eq!(resumed, round > 0, "a ticket is there and good");
        // What a ticket allows to be sent early is said in it.
        let name = "shop.test".try_into().unwrap();
        let mut next = rustls::ClientConnection::new(config.clone(), name).unwrap();
        assert!(next.early_data().is_none(), "round {round}");
    }
}
