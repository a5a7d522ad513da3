//! A real registry (Debian's `docker-registry`), with TLS and users: policies are pushed by curl, as the CNCF's layout has it, and pulled by the
//! balancer; by one alone, and by the nodes of a fleet.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use trimtab::policy::digest;
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, Port, Setup, ask_admin, guest::Guest, tls::Authority, wait_until,
};

use crate::{
    etcd::Etcd,
    program::{install, told},
};

/// It ends with this.
struct Registry {
    directory: Directory,
    port: Port,
    child: Child,
}

/// `bot` with the password `first`, by bcrypt, which is all that the registry takes.
const USERS: &str = "bot:$2y$05$abcdefghijklmnopqrstuu3rQZA.e/048YzLTJ55aycWHfqo0a49W\n";

impl Registry {
    async fn start() -> Self {
        install("registry").await;
        install("curl").await;
        let (directory, port, authority) = (Directory::new(), Port::new(), Authority::new());
        let signed = authority.server(["127.0.0.1"]);
        directory.write("ca.pem", &authority.pem);
        directory.write("cert.pem", signed.cert);
        directory.write("key.pem", signed.key);
        directory.write("users", USERS);
        directory.write("password", "first\n");
        let (path, address) = (directory.path().display(), port.address());
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {path}/data}}}}\n\
             http: {{addr: \"{address}\", tls: {{certificate: {path}/cert.pem, key: {path}/key.pem}}}}\n\
             auth: {{htpasswd: {{realm: test, path: {path}/users}}}}\n"
        );
        let config = directory.write("config.yml", config);
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut registry = Self {
            directory,
            port,
            child,
        };
        wait_until("the registry answers", DEADLINE, || {
            assert!(registry.child.try_wait().unwrap().is_none(), "it has ended");
            registry.try_curl(&[&registry.url("")]).is_some()
        })
        .await;
        registry
    }

    fn name(&self) -> String {
        self.port.address().to_string()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}/v2/{path}", self.name())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn try_curl(&self, arguments: &[&str]) -> Option<String> {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--user",
            "bot:first",
            "--cacert",
        ])
        .arg(self.path("ca.pem"))
        .args(arguments);
        let output = curl.output().unwrap();
        output.status.success().then(|| told(&output))
    }

    fn curl(&self, arguments: &[&str]) -> String {
        let said = self.try_curl(arguments);
        said.unwrap_or_else(|| panic!("curl {arguments:?}: {}", self.log()))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    fn push_blob(&self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let head = self.curl(&[
            "--include",
            "--request",
            "POST",
            &self.url("team/policy/blobs/uploads/"),
        ]);
        let location = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location").then(|| value.trim())
        });
        let location = location.unwrap_or_else(|| panic!("no location: {head}"));
        let joint = if location.contains('?') { '&' } else { '?' };
        let file = self.directory.write("blob", bytes);
        self.curl(&[
            "--request",
            "PUT",
            "--header",
            "content-type: application/octet-stream",
            "--data-binary",
            &format!("@{}", file.display()),
            &format!("{location}{joint}digest=sha256:{digest}"),
        ]);
        digest
    }

    /// Pushes a component under a tag; the reference to it.
    fn push(&self, component: &[u8], tag: &str) -> String {
        let (layer, config) = (self.push_blob(component), self.push_blob(b"{}"));
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"sha256:{config}","size":2}},"layers":[{{"mediaType":"application/wasm","digest":"sha256:{layer}","size":{}}}]}}"#,
            component.len()
        );
        let file = self.directory.write("manifest", &manifest);
        self.curl(&[
            "--request",
            "PUT",
            "--header",
            "content-type: application/vnd.oci.image.manifest.v1+json",
            "--data-binary",
            &format!("@{}", file.display()),
            &self.url(&format!("team/policy/manifests/{tag}")),
        ]);
        format!(
            "oci://{}/team/policy:{tag}@sha256:{}",
            self.name(),
            digest(manifest.as_bytes())
        )
    }

    /// How it is asked, as who may.
    fn table(&self) -> String {
        format!(
            "[registry.\"{}\"]\nuser = \"bot\"\npassword_file = {:?}\ntls = {{ ca = {:?} }}\n",
            self.name(),
            self.path("password"),
            self.path("ca.pem")
        )
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Gives a generation to the fleet.
async fn publish(node: &Balancer, text: &str) {
    let admin = node.handle().admin().unwrap();
    let mut client = Client::connect(admin).await;
    let length = text.len();
    let head = format!(
        "POST /v1/fleet/generations HTTP/1.1\r\nhost: {admin}\r\ncontent-type: application/toml\r\ncontent-length: {length}\r\n\r\n"
    );
    client.send(head).await;
    let answer = client.ask(text).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn serves(balancer: &Balancer, pool: &str, component: &[u8]) -> bool {
    *balancer.view_of(pool).deployment.candidate.digest == *digest(component)
}

fn other() -> Vec<u8> {
    let guest = Guest {
        pick: Guest::always(0),
        ..Guest::default()
    };
    guest.build()
}

#[tokio::test]
async fn what_was_pushed_is_pulled_and_goes_on_without_the_registry() {
    let mut registry = Registry::start().await;
    let (first, second) = (Guest::default().build(), other());
    let reference = registry.push(&first, "1");
    let setup = |reference: &str, user: &str| {
        let table = registry.table().replace("bot", user);
        Setup::to("127.0.0.1:9".to_owned())
            .with_admin()
            .pool("policy = \"mine\"")
            .rest(&format!("[policy.mine]\ncomponent = \"{reference}\"\n{table}"))
    };
    let (old, stranger) = (setup(&reference, "bot"), setup(&reference, "nobody"));
    // The tag goes on to other code; what was reviewed is what runs.
    let moved = registry.push(&second, "1");
    let balancer = old.start().await;
    assert!(serves(&balancer, "main", &first));
    balancer.replace(&setup(&moved, "bot")).await.unwrap();
    assert!(serves(&balancer, "main", &second));
    let text = ask_admin(balancer.handle().admin().unwrap(), "/v1/policies").await;
    let told: Value = serde_json::from_str(&text.text()).unwrap();
    let served = &told["pools"][0]["versions"][0];
    assert_eq!(
        (served["origin"].as_str(), served["source"].as_str()),
        (Some("registry"), Some(&*moved.replace(":1@", "@"))),
        "{told}"
    );

    let refusal = match Balancer::start(stranger.text(), registry.directory.path()).await {
        Ok(_) => panic!("a stranger is let in"),
        Err(error) => error.to_string(),
    };
    assert!(
        refusal.contains("user \"nobody\" may not read it (status 401 UNAUTHORIZED"),
        "{refusal}"
    );
    registry.stop();
    balancer.replace(&old).await.unwrap();
    assert!(serves(&balancer, "main", &first));
}

#[tokio::test]
async fn nodes_of_a_fleet_pull_and_etcd_has_the_name_only() {
    let (registry, etcd, directory) = (Registry::start().await, Etcd::start().await, Directory::new());
    let component = Guest::default().build();
    let reference = registry.push(&component, "1");
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let state = directory.path().join(name);
        let tables = format!(
            "{}{}[fleet]\nnode = \"{name}\"\nttl = \"2s\"\ncanary_for = \"0s\"\n[state]\ndirectory = {state:?}\n",
            etcd.all(),
            registry.table()
        );
        let own = Setup::to("127.0.0.1:9".to_owned())
            .listener("route = [{ pool = \"main\" }]")
            .with_admin();
        nodes.push(own.rest(&tables).start().await);
    }
    let members = |node: &Balancer| node.handle().fleet().unwrap().view().members.len();
    wait_until("both see both", DEADLINE, || {
        nodes.iter().all(|node| members(node) == 2)
    })
    .await;
    let text = format!(
        "[policy.mine]\ncomponent = \"{reference}\"\n[pool.shop]\nbackends = [\"127.0.0.1:9\"]\npolicy = \"mine\"\n\
         [[listener]]\nname = \"shop\"\nlisten = \"127.0.0.1:0\"\nroute = [{{ pool = \"shop\" }}]\n"
    );
    publish(&nodes[0], &text).await;
    wait_until("both serve it", DEADLINE, || {
        let has_pool = |node: &&Balancer| {
            let pools = node.handle().pools();
            pools.iter().any(|view| view.pool.name() == "shop")
        };
        nodes
            .iter()
            .all(|node| has_pool(&node) && serves(node, "shop", &component))
    })
    .await;
    assert_eq!(
        etcd.ctl(&["get", "--prefix", "--keys-only", "trimtab/policies/"])
            .trim(),
        ""
    );
}
