//! The REST API, one method for each endpoint.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{StatusCode, dns::Resolve};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    Acquired, AcquiredKind, ControlService, Credentials, Dataset, DatasetState, Datasets, Error, Extensions,
    Lease, Listed, NewDataset, Node,
    endpoint::Endpoint,
    model::{NodeOfEra, Version},
    observer::RequestObserver,
    resolver::ServiceResolver,
    transport::Transport,
};

/// The settings of a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The address of the control service.
    pub control_service: ControlService,
    /// The user's certificate and key, and the certificate of the cluster to trust.
    pub credentials: Credentials,
    /// The name that the certificate of the control service must carry. The name of its host does not matter.
    pub server_name: String,
    /// How long a request may take, the repetition of a read included.
    pub timeout: Duration,
    /// How long it may take to make a connection, TLS included.
    pub connect_timeout: Duration,
    /// What learns of the end of every request, if anything.
    pub observer: Option<Arc<dyn RequestObserver>>,
}

impl ClientSettings {
    /// Returns settings with the defaults: name `control-service`, 30 s for a request, 10 s for a connection.
    pub fn new(control_service: ControlService, credentials: Credentials) -> Self {
        Self {
            control_service,
            credentials,
            server_name: "control-service".to_owned(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            observer: None,
        }
    }
}

/// A client of one Flocker control service.
///
/// Clones share their connections. Requests need a tokio runtime, which also drives the connections. Dropping the
/// future of a request abandons the request; whether a write has been carried out is then unclear.
///
/// # Errors
///
/// Every method can fail in each way that [`Error`] describes; the methods name only what is special to them.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Arc<Transport>,
}

impl Client {
    /// Makes a client; no connection is made yet.
    ///
    /// Blocks for about 20 ms, because OpenSSL reads the system's certificates before they are discarded, so call it
    /// from a thread that may block. A client keeps its certificates: make a new one when the files change, and drop
    /// the old one, whose connections close with it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the server name is no DNS name or OpenSSL refuses the certificates.
    pub fn new(settings: ClientSettings) -> Result<Self, Error> {
        let resolver = Arc::new(ServiceResolver::new(settings.control_service.host()));
        Self::with_resolver(settings, resolver)
    }

    /// Makes a client that looks up the control service with `resolver`.
    pub(crate) fn with_resolver(settings: ClientSettings, resolver: Arc<dyn Resolve>) -> Result<Self, Error> {
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
        let version: Version = self.transport.send(Endpoint::Version).await?.decode()?;
        Ok(version.flocker)
    }

    /// Returns the version of the control service, and the time of its clock when it answered, if it says that.
    pub async fn version_and_time(&self) -> Result<(String, Option<SystemTime>), Error> {
        let answer = self.transport.send(Endpoint::Version).await?;
        let date = answer.date();
        let version: Version = answer.decode()?;
        Ok((version.flocker, date))
    }

    /// Returns what the control service can do beyond Flocker. A cluster's Flocker can do nothing beyond, and has no such
    /// request.
    pub async fn extensions(&self) -> Result<Extensions, Error> {
        match self.transport.send(Endpoint::Extensions).await {
            Ok(answer) => answer.decode(),
            Err(error) if error.is_not_found() => Ok(Extensions::default()),
            Err(error) => Err(error),
        }
    }

    /// Lists the configured datasets, deleted ones included.
    ///
    /// A control service with the extension `tombstones` leaves out those that were deleted long ago and destroyed.
    pub async fn list_datasets(&self) -> Result<Datasets, Error> {
        let list = self.transport.send_for_list(Endpoint::ListDatasets).await?;
        let Listed { entries, unreadable } = list.listed;
        Ok(Datasets {
            datasets: entries,
            unreadable,
            tag: list.tag,
        })
    }

    /// Configures a new dataset; a node creates it some seconds later.
    ///
    /// # Errors
    ///
    /// A conflict ([`Error::is_conflict`]) if the id is in use, even by an equal dataset or a deleted one. With the
    /// extension `tombstones`, [`Error::taken_id`] says by which.
    pub async fn create_dataset(&self, new: &NewDataset) -> Result<Dataset, Error> {
        let answer = self.transport.send_with(Endpoint::CreateDataset, new).await?;
        answer.decode_entry(|created: &Dataset| {
            let id_matches = new.dataset_id.is_none_or(|id| id == created.dataset_id);
            mismatch(&[
                ("dataset_id", id_matches),
                ("primary", created.primary == new.primary),
            ])
        })
    }

    /// Makes `primary` the node on which the dataset is meant to be mounted; nothing happens if it is already.
    ///
    /// Flocker checks neither leases nor whether the node exists.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] for an unknown dataset, [`Error::is_deleted`] for a deleted one.
    pub async fn move_dataset(&self, dataset_id: Uuid, primary: Uuid) -> Result<Dataset, Error> {
        #[derive(Serialize)]
        struct Move {
            primary: Uuid,
        }
        let endpoint = Endpoint::MoveDataset(dataset_id);
        let answer = self.transport.send_with(endpoint, &Move { primary }).await?;
        answer.decode_entry(|moved: &Dataset| {
            mismatch(&[
                ("dataset_id", moved.dataset_id == dataset_id),
                ("primary", moved.primary == primary),
            ])
        })
    }

    /// Marks the dataset as deleted; its primary destroys it later. May be repeated.
    ///
    /// Flocker does not check leases.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] for a dataset that never existed.
    pub async fn delete_dataset(&self, dataset_id: Uuid) -> Result<Dataset, Error> {
        let answer = self.transport.send(Endpoint::DeleteDataset(dataset_id)).await?;
        answer.decode_entry(|deleted: &Dataset| {
            mismatch(&[
                ("dataset_id", deleted.dataset_id == dataset_id),
                ("deleted", deleted.deleted),
            ])
        })
    }

    /// Lists the datasets as the nodes report them.
    pub async fn list_dataset_states(&self) -> Result<Listed<DatasetState>, Error> {
        let list = self.transport.send_for_list(Endpoint::ListDatasetStates);
        Ok(list.await?.listed)
    }

    /// Lists the nodes that report to the control service.
    ///
    /// An entry that cannot be decoded may be that of any node: see [`Unreadable::without_id`](crate::Unreadable).
    pub async fn list_nodes(&self) -> Result<Listed<Node>, Error> {
        Ok(self.transport.send_for_list(Endpoint::ListNodes).await?.listed)
    }

    /// Returns the node that reported the given era (its boot id), or `None` if no node has.
    ///
    /// Flocker keeps the eras of nodes that no longer exist.
    pub async fn node_by_era(&self, era: Uuid) -> Result<Option<Uuid>, Error> {
        match self.transport.send(Endpoint::NodeByEra(era)).await {
            Ok(answer) => answer.decode().map(|node: NodeOfEra| Some(node.uuid)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists the leases.
    ///
    /// A dataset whose lease cannot be decoded is leased nevertheless.
    pub async fn list_leases(&self) -> Result<Listed<Lease>, Error> {
        Ok(self.transport.send_for_list(Endpoint::ListLeases).await?.listed)
    }

    /// Acquires the lease on a dataset for a node, or renews it, for `expires` seconds; `None` means until it is
    /// released.
    ///
    /// Flocker checks neither whether the dataset exists nor whether the node does.
    ///
    /// # Errors
    ///
    /// A conflict ([`Error::is_conflict`]) if another node holds the lease; [`Error::Invalid`] for an `expires` that
    /// is no finite number.
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
        let body = Acquire {
            dataset_id,
            node_uuid: node,
            expires,
        };
        let answer = self.transport.send_with(Endpoint::AcquireLease, &body).await?;
        let kind = if answer.status() == StatusCode::CREATED {
            AcquiredKind::New
        } else {
            AcquiredKind::Renewed
        };
        let lease = answer.decode_entry(|lease: &Lease| {
            mismatch(&[
                ("dataset_id", lease.dataset_id == dataset_id),
                ("node_uuid", lease.node_uuid == node),
            ])
        })?;
        Ok(Acquired { lease, kind })
    }

    /// Releases the lease on a dataset, whichever node holds it, and returns it; `None` if no node held one.
    pub async fn release_lease(&self, dataset_id: Uuid) -> Result<Option<Lease>, Error> {
        let released = match self.transport.send(Endpoint::ReleaseLease(dataset_id)).await {
            Ok(answer) => answer,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let lease = released
            .decode_entry(|lease: &Lease| mismatch(&[("dataset_id", lease.dataset_id == dataset_id)]));
        lease.map(Some)
    }
}

/// Returns the first field of an answer that is not as the request demands.
fn mismatch(fields: &[(&'static str, bool)]) -> Option<&'static str> {
    fields
        .iter()
        .find(|(_, matches)| !matches)
        .map(|(field, _)| *field)
}
