//! `CreateVolume`.

use std::sync::Arc;

use csi_proto::v1::{CreateVolumeRequest, CreateVolumeResponse, Volume as ProtoVolume};

use super::{ControllerCore, bytes};
use crate::csi::capability::{Capability, log_flags_without_effect};
use crate::error::{Error, Result, Situation};
use crate::flocker::provisioning::NewVolume;
use crate::operation::deadline::Deadline;
use crate::operation::{Context, Operation};
use crate::volume::{Parameters, SizeRange, VolumeName, metadata};

/// Requests for one name exclude each other; equal requests are one operation.
impl Operation for NewVolume {
    type Slot = VolumeName;

    fn slot(&self) -> VolumeName {
        self.name.clone()
    }
}

/// Creates a volume, or finds the one that an earlier equal call created.
pub(super) async fn create_volume(
    core: &Arc<ControllerCore>,
    deadline: Deadline,
    request: CreateVolumeRequest,
) -> Result<CreateVolumeResponse> {
    let wanted = parse(core, &request)
        .map_err(|error| error.context(format_args!("creating volume {:?}", request.name)))?;
    let work = {
        let (provisioner, wanted) = (core.provisioner.clone(), wanted.clone());
        |context: Context| async move { provisioner.provision(&context, &wanted).await }
    };
    let volume = core.creates.run(wanted, deadline, work).await?;
    // A constant, empty context: Mesos checks that it never changes. No topology: a dataset can move anywhere.
    let volume = ProtoVolume {
        volume_id: volume.dataset.to_string(),
        capacity_bytes: bytes(volume.size),
        ..Default::default()
    };
    Ok(CreateVolumeResponse { volume: Some(volume) })
}

fn parse(core: &ControllerCore, request: &CreateVolumeRequest) -> Result<NewVolume> {
    let refuse = |text: &str| Err(Error::new(Situation::InvalidArgument, text));
    let settings = core.provisioner.settings();
    let name = VolumeName::parse(&request.name)?;
    Capability::parse_all(&request.volume_capabilities)?;
    log_flags_without_effect(&request.name, &request.volume_capabilities);
    let parameters = Parameters::parse(&request.parameters)?;
    metadata(&settings.driver_name, &name, 0, &parameters)?;
    if request.volume_content_source.is_some() {
        return refuse(
            "volume_content_source is not supported: Flocker has neither snapshots nor clones, so leave it unset",
        );
    }
    if !request.mutable_parameters.is_empty() {
        return refuse(
            "mutable_parameters is not supported: Flocker cannot change a dataset, so leave it empty and use \
             parameters",
        );
    }
    let capacity_range = request.capacity_range.unwrap_or_default();
    let range = SizeRange::parse(capacity_range.required_bytes, capacity_range.limit_bytes)?;
    let size = settings.sizes.choose(range)?;
    Ok(NewVolume {
        name,
        range,
        size,
        parameters,
    })
}
