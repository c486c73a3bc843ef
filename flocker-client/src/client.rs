//! The REST API, one method for each endpoint.

use std::{sync::Arc, time::Duration};

use reqwest::{StatusCode, dns::Resolve};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    Acquired, AcquiredKind, ControlService, Credentials, Dataset, DatasetState, Datasets, Error, Lease,
    NewDataset, Node,
    model::{NodeOfEra, Version},
    resolver::ServiceResolver,
    transport::Transport,
};

const VERSION: &str = "/v1/version";
const DATASETS: &str = "/v1/configuration/datasets";
const LEASES: &str = "/v1/configuration/leases";
const DATASET_STATES: &str = "/v1/state/datasets";
const NODES: &str = "/v1/state/nodes";
const NODES_BY_ERA: &str = "/v1/state/nodes/by_era";

/// What a [`Client`] needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the control service is.
    pub control_service: ControlService,
    /// Who we are, and which cluster we trust.
    pub credentials: Credentials,
    /// Name that the certificate of the control service must carry, whatever its host is called.
    pub server_name: String,
    /// How long a request may take in all, a repetition included.
    pub timeout: Duration,
    /// How long a connection may take to come about, TLS included.
    pub connect_timeout: Duration,
}

impl Settings {
    /// Returns settings with the defaults: name `control-service`, 30 s for a request, 10 s for a connection.
    pub fn new(control_service: ControlService, credentials: Credentials) -> Self {
        Self {
            control_service,
            credentials,
            server_name: "control-service".to_owned(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// A client of one Flocker control service.
///
/// Clones share their connections. Requests need a tokio runtime, on which the connections live too. Dropping
/// a request's future gives the request up; whether a write has been carried out is unclear then.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Arc<Transport>,
}

impl Client {
    /// Makes a client; no connection is made yet.
    ///
    /// Blocks for some 20 ms, because OpenSSL reads the system's certificates before they are discarded, so
    /// call it from a thread that may block. A client keeps its certificates: make a new one when the files
    /// change, and drop the old one, whose connections close with it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the server name is no DNS name or OpenSSL refuses the certificates.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let resolver = Arc::new(ServiceResolver::new(settings.control_service.host()));
        Self::with_resolver(settings, resolver)
    }

    /// Makes a client that finds the control service by `resolver`.
    pub(crate) fn with_resolver(settings: Settings, resolver: Arc<dyn Resolve>) -> Result<Self, Error> {
        let authorities = settings.credentials.authorities()?;
        let identity = settings.credentials.identity()?;
        Transport::new(settings, authorities, Some(identity), resolver).map(Self::over)
    }

    pub(crate) fn over(transport: Transport) -> Self {
        Self {
            transport: Arc::new(transport),
        }
    }

    /// Returns the version of the control service.
    pub async fn version(&self) -> Result<String, Error> {
        let version: Version = self.transport.get(VERSION).await?.decode()?;
        Ok(version.flocker)
    }

    /// Lists the configured datasets, deleted ones included.
    pub async fn list_datasets(&self) -> Result<Datasets, Error> {
        let mut answer = self.transport.get(DATASETS).await?;
        let tag = answer.take_tag();
        Ok(Datasets {
            datasets: answer.decode()?,
            tag,
        })
    }

    /// Configures a new dataset; a node makes it some seconds later.
    ///
    /// # Errors
    ///
    /// A conflict ([`Error::is_conflict`]) if the id is in use, also by the very same dataset or a deleted
    /// one.
    pub async fn create_dataset(&self, new: &NewDataset) -> Result<Dataset, Error> {
        self.transport.post(DATASETS, new).await?.decode()
    }

    /// Makes `primary` the node on which the dataset is meant to be mounted; nothing happens if it is
    /// already.
    ///
    /// Flocker checks neither leases nor whether there is such a node.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] for an unknown dataset, [`Error::is_gone_deleted`] for a deleted one.
    pub async fn move_dataset(&self, dataset_id: Uuid, primary: Uuid) -> Result<Dataset, Error> {
        #[derive(Serialize)]
        struct Move {
            primary: Uuid,
        }
        self.transport
            .post(&item(DATASETS, dataset_id), &Move { primary })
            .await?
            .decode()
    }

    /// Marks the dataset as deleted; its primary destroys it later. May be repeated.
    ///
    /// Flocker does not check leases.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] for a dataset that never was.
    pub async fn delete_dataset(&self, dataset_id: Uuid) -> Result<Dataset, Error> {
        self.transport.delete(&item(DATASETS, dataset_id)).await?.decode()
    }

    /// Lists the datasets as the nodes report them.
    pub async fn list_dataset_states(&self) -> Result<Vec<DatasetState>, Error> {
        self.transport.get(DATASET_STATES).await?.decode()
    }

    /// Lists the nodes that report to the control service.
    pub async fn list_nodes(&self) -> Result<Vec<Node>, Error> {
        self.transport.get(NODES).await?.decode()
    }

    /// Returns the node that runs in the given era (its boot id), or `None` if none has reported that era
    /// yet.
    ///
    /// Flocker goes on answering for nodes that are long gone.
    pub async fn node_by_era(&self, era: Uuid) -> Result<Option<Uuid>, Error> {
        match self.transport.get(&item(NODES_BY_ERA, era)).await {
            Ok(answer) => answer.decode().map(|node: NodeOfEra| Some(node.uuid)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists the leases.
    pub async fn list_leases(&self) -> Result<Vec<Lease>, Error> {
        self.transport.get(LEASES).await?.decode()
    }

    /// Acquires the lease on a dataset for a node, or renews it, for `expires` seconds or for ever.
    ///
    /// Flocker checks neither whether there is such a dataset nor such a node.
    ///
    /// # Errors
    ///
    /// A conflict ([`Error::is_conflict`]) if another node holds the lease; [`Error::Invalid`] for an
    /// `expires` that is no finite number.
    pub async fn acquire_lease(
        &self,
        dataset_id: Uuid,
        node: Uuid,
        expires: Option<f64>,
    ) -> Result<Acquired, Error> {
        #[derive(Serialize)]
        struct Acquire {
            dataset_id: Uuid,
            node_uuid: Uuid,
            expires: Option<f64>,
        }
        if let Some(expires) = expires.filter(|expires| !expires.is_finite()) {
            let problem = format!("a lease cannot expire in {expires} seconds");
            return Err(Error::Invalid {
                problem,
                source: None,
            });
        }
        let answer = self
            .transport
            .post(
                LEASES,
                &Acquire {
                    dataset_id,
                    node_uuid: node,
                    expires,
                },
            )
            .await?;
        let kind = if answer.status() == StatusCode::CREATED {
            AcquiredKind::New
        } else {
            AcquiredKind::Renewed
        };
        Ok(Acquired {
            lease: answer.decode()?,
            kind,
        })
    }

    /// Releases the lease on a dataset, whichever node holds it, and returns it; `None` if there was none.
    pub async fn release_lease(&self, dataset_id: Uuid) -> Result<Option<Lease>, Error> {
        match self.transport.delete(&item(LEASES, dataset_id)).await {
            Ok(answer) => answer.decode().map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns the path of one item; Flocker compares ids in paths by their letters, and writes them in lower
/// case.
fn item(collection: &str, id: Uuid) -> String {
    format!("{collection}/{}", id.as_hyphenated())
}
