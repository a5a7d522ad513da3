//! I: clients that cost much. Those that wait are in `e2e/proxy/timeouts.rs`.

use crate::stage::Stage;

#[tokio::test]
async fn i08_a_range_of_ten_thousand_parts_is_passed_on_within_the_limit_for_fields() {
    let judge = Stage::new().await;
    let ranges = (0..1500)
        .map(|at| format!("{at}-{at}"))
        .collect::<Vec<_>>()
        .join(",");
    let request = judge
        .passed(format!(
            "GET / HTTP/1.1\r\nhost: a\r\nrange: bytes={ranges}\r\n\r\n"
        ))
        .await;
    assert_eq!(request.all("range"), [format!("bytes={ranges}")]);
    let ranges = (0..10_000)
        .map(|at| format!("{at}-{at}"))
        .collect::<Vec<_>>()
        .join(",");
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\nrange: bytes={ranges}\r\n\r\n");
    judge.refused(request, &[431]).await;
}
