//! Runs a Flocker with two nodes, and moves a dataset with its data from one to the other.
//!
//! It needs root: `sudo -E cargo run --package flocker-embedded --example move_a_dataset`. All files are in a temporary
//! directory, which is removed at the end.

use std::fs;
use std::path::{Path, PathBuf};

use flocker_embedded::{Embedded, Options};
use reqwest::{Certificate, Client, Identity};
use serde_json::{Value, json};
use tokio::time::{Duration, sleep, timeout};
use uuid::Uuid;

/// 64 MiB, the minimum of Flocker's API.
const SIZE: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let content = run(directory.path()).await?;
    println!("node 2 has read {content:?}");
    Ok(())
}

/// Creates a dataset on node 1, writes a file to it, moves it to node 2, and returns what node 2 reads from the file.
pub(crate) async fn run(directory: &Path) -> Result<String> {
    let flocker = Embedded::start(Options {
        nodes: 2,
        ..Options::new(directory.join("data"), directory.join("certificates"))
    })
    .await?;
    println!("the control service listens on https://{}", flocker.address());
    let api = Api::connect(&flocker)?;
    let [first, second] = [0, 1].map(|index| flocker.nodes()[index].uuid);

    let dataset = Uuid::new_v4();
    let new = json!({"dataset_id": dataset, "primary": first, "maximum_size": SIZE});
    api.post("/v1/configuration/datasets", &new).await?;
    let path = api.mounted_on(dataset, first).await?;
    println!("node 1 has mounted the dataset at {}", path.display());
    fs::write(path.join("greeting"), "hello from node 1")?;

    let relocated = json!({"primary": second});
    api.post(&format!("/v1/configuration/datasets/{dataset}"), &relocated)
        .await?;
    let path = api.mounted_on(dataset, second).await?;
    println!("node 2 has mounted the dataset at {}", path.display());
    let content = fs::read_to_string(path.join("greeting"))?;

    flocker.stop().await?;
    Ok(content)
}

/// The REST API, used with the certificate that the embedded Flocker has written for its client.
struct Api {
    client: Client,
    base: String,
}

impl Api {
    fn connect(flocker: &Embedded) -> Result<Self> {
        let read = |name: &str| fs::read(flocker.certificates().join(name));
        let identity = Identity::from_pkcs8_pem(&read("plugin.crt")?, &read("plugin.key")?)?;
        let client = Client::builder()
            .no_proxy()
            .tls_certs_only([Certificate::from_pem(&read("cluster.crt")?)?])
            .identity(identity)
            // The certificate of every control service is issued for this name.
            .resolve("control-service", flocker.address())
            .build()?;
        Ok(Self {
            client,
            base: format!("https://control-service:{}", flocker.address().port()),
        })
    }

    async fn post(&self, path: &str, body: &Value) -> Result<()> {
        let request = self.client.post(format!("{}{path}", self.base)).json(body);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// Waits until state shows a dataset mounted on a node, and returns its mount point.
    async fn mounted_on(&self, dataset: Uuid, node: Uuid) -> Result<PathBuf> {
        let wait = async {
            loop {
                let request = self.client.get(format!("{}/v1/state/datasets", self.base));
                let state: Vec<Value> = request.send().await?.json().await?;
                let mounted = state
                    .iter()
                    .find(|entry| entry["dataset_id"] == json!(dataset) && entry["primary"] == json!(node));
                if let Some(path) = mounted.and_then(|entry| entry["path"].as_str()) {
                    return Ok(PathBuf::from(path));
                }
                sleep(POLL).await;
            }
        };
        timeout(PATIENCE, wait).await?
    }
}
