use flocker_embedded::*;
use std::path::PathBuf;
#[tokio::main]
async fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap());
    let pace = if std::env::args().nth(2).as_deref() == Some("stock") {
        Pace::Stock
    } else {
        Pace::Instant
    };
    let mut o = Options::new(dir.join("data"), dir.join("certs"));
    o.nodes = 3;
    o.pace = pace;
    o.eras
        .insert(2, "142eed17-65d6-45f7-b66f-ee7bd87a6519".parse().unwrap());
    o.eras
        .insert(1, "89bb5e16-c7c9-49ee-937a-4e61a43f30d8".parse().unwrap());
    o.eras
        .insert(3, "f9bb17d3-731e-4729-8044-d189ec0d00bc".parse().unwrap());
    let e = Embedded::start(o).await.unwrap();
    std::fs::write(dir.join("addr"), e.address().port().to_string()).unwrap();
    let mut s = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut s))
        .await
        .unwrap()
        .unwrap();
    eprintln!("{:?}", e.counters());
    e.stop().await.unwrap();
}
