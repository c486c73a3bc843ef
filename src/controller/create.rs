//! `CreateVolume`.

use std::sync::Arc;

use csi_proto::v1::{
    CreateVolumeRequest, CreateVolumeResponse, Topology as ProtoTopology, TopologyRequirement,
    Volume as ProtoVolume,
};
use uuid::Uuid;

use super::{ControllerCore, bytes};
use crate::csi::capability::{Capability, log_flags_without_effect};
use crate::error::{Error, Result, Situation};
use crate::flocker::provisioning::{NewVolume, Placement};
use crate::operation::deadline::Deadline;
use crate::operation::{Context, Operation, Subject};
use crate::volume::{
    KubernetesClaim, Parameters, SizeRange, TopologyKey, VolumeLabels, VolumeName, metadata,
};

/// Requests for one name exclude each other; equal requests are one operation, wherever each prefers the volume to be.
impl Operation for NewVolume {
    type Slot = VolumeName;

    fn name(&self) -> &'static str {
        "create"
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            labels: VolumeLabels {
                name: Some(self.name.as_str().to_owned()),
                claim: KubernetesClaim::in_metadata(&self.parameters.metadata),
            },
            ..Subject::default()
        }
    }

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
    let parsed = parse(core, &request).and_then(|wanted| Ok((wanted, placement(core, &request)?)));
    let (wanted, placement) =
        parsed.map_err(|error| error.context(format_args!("creating volume {:?}", request.name)))?;
    let work = {
        let (provisioner, wanted) = (core.provisioner.clone(), wanted.clone());
        |context: Context| async move { provisioner.provision(&context, &wanted, &placement).await }
    };
    let volume = core.creates.run(wanted, deadline, work).await?;
    // A constant, empty context: Mesos checks that it never changes. No topology, whatever the request says of it: a
    // dataset can move anywhere, and an orchestrator would keep its users from every other node.
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

/// Returns where the request wants the volume; without topology, nothing of it is read.
fn placement(core: &ControllerCore, request: &CreateVolumeRequest) -> Result<Placement> {
    let (Some(key), Some(requirements)) = (
        &core.provisioner.settings().topology,
        &request.accessibility_requirements,
    ) else {
        return Ok(Placement::default());
    };
    let TopologyRequirement { requisite, preferred } = requirements;
    let of = |field: &str, topologies| {
        nodes(key, topologies)
            .map_err(|error| error.context(format_args!("accessibility_requirements.{field}")))
    };
    Ok(Placement {
        preferred: of("preferred", preferred)?,
        requisite: of("requisite", requisite)?,
    })
}

fn nodes(key: &TopologyKey, topologies: &[ProtoTopology]) -> Result<Vec<Uuid>> {
    let nodes = topologies.iter().map(|topology| key.node(&topology.segments));
    nodes.filter_map(Result::transpose).collect()
}
