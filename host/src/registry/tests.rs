//! What registries say, read to the letter; whole pulls are in `tests/e2e/registry.rs`.

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};

use super::{
    login::{Challenge, bearer, token_url},
    url::Url,
};

fn challenge(fields: &[&'static str]) -> Option<Challenge> {
    let mut headers = HeaderMap::new();
    for field in fields {
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(field));
    }
    Challenge::find(&headers)
}

fn wants(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
    Some(Challenge::Bearer {
        realm: realm.to_owned(),
        service: service.map(str::to_owned),
        scope: scope.map(str::to_owned),
    })
}

#[test]
fn challenges_are_read_in_any_spelling() {
    let scope = Some("repository:a/b:pull,push");
    for (field, wanted) in [
        (
            r#"Bearer realm="https://a/token",service="r",scope="repository:a/b:pull,push""#,
            wants("https://a/token", Some("r"), scope),
        ),
        (
            r#"bearer Scope="repository:a/b:pull,push" , REALM = "https://a/token""#,
            wants("https://a/token", None, scope),
        ),
        (
            r#"Bearer realm=https://a/token,service="a \"b\" = c",error="x""#,
            wants("https://a/token", Some("a \"b\" = c"), None),
        ),
        ("Basic realm=\"r\"", Some(Challenge::Basic)),
        ("BASIC", Some(Challenge::Basic)),
        ("Bearer service=\"r\"", None),
        ("Bearer realm=\"https://a", wants("https://a", None, None)),
        ("Negotiate", None),
        ("", None),
        ("=", None),
        ("Bearer ==,=\"\\", None),
    ] {
        assert_eq!(challenge(&[field]), wanted, "{field}");
    }
    let both = challenge(&["Basic realm=\"r\"", "Bearer realm=\"https://a\""]);
    assert_eq!(
        both,
        wants("https://a", None, None),
        "a token is worth less to a thief"
    );
}

#[test]
fn a_token_is_asked_for_where_the_realm_is() {
    let at = |realm: &str, service: Option<&str>, scope: Option<&str>| {
        let url = token_url((realm, service, scope), "a/b")?;
        Some(format!("{} {}", url.address, url.path))
    };
    assert_eq!(
        at("https://auth.example/token", Some("r s"), None).as_deref(),
        Some("auth.example:443 /token?service=r%20s&scope=repository%3Aa%2Fb%3Apull")
    );
    assert_eq!(
        at("https://auth.example:5001/t?x=1", None, Some("s")).as_deref(),
        Some("auth.example:5001 /t?x=1&scope=s")
    );
    for realm in [
        "auth.example/token",
        "ftp://a/",
        "https://u:p@a/",
        "/token",
        "https://",
    ] {
        assert_eq!(at(realm, None, None), None, "{realm}");
    }
}

#[test]
fn tokens_have_two_names() {
    let shown = |answer: &str| bearer(answer.as_bytes()).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(shown(r#"{"token":"a"}"#).as_deref(), Some("Bearer a"));
    assert_eq!(shown(r#"{"access_token":"b"}"#).as_deref(), Some("Bearer b"));
    for answer in ["{}", "[]", "x", r#"{"token":1}"#, "{\"token\":\"a\\nb\"}"] {
        assert_eq!(shown(answer), None, "{answer}");
    }
}

#[test]
fn locations_are_whole_or_begin_with_a_slash() {
    let here = Url::parse("https://a.example/v2/x").unwrap();
    let to = |location: &str| {
        here.join(location)
            .map(|url| format!("{} {}", url.address, url.path))
    };
    assert_eq!(to("/y?z").as_deref(), Some("a.example:443 /y?z"));
    assert_eq!(to("https://b.example/y").as_deref(), Some("b.example:443 /y"));
    assert_eq!(to("http://[::1]:8080").as_deref(), Some("[::1]:8080 /"));
    for location in ["//b.example/y", "y", "file:///etc/passwd", "https://u@b/"] {
        assert_eq!(to(location), None, "{location}");
    }
    assert!(here.is_same_place(&Url::parse("https://A.example:443/z").unwrap()));
    for other in [
        "http://a.example:443/",
        "https://a.example:444/",
        "https://b.example/",
    ] {
        assert!(!here.is_same_place(&Url::parse(other).unwrap()), "{other}");
    }
}
