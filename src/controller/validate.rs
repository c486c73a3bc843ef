//! `ValidateVolumeCapabilities`.

use csi_proto::v1::validate_volume_capabilities_response::Confirmed;
use csi_proto::v1::{ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse};
use flocker_client::Dataset;

use super::ControllerCore;
use crate::csi::capability::{Capability, Side};
use crate::csi::fields::{existing_dataset, volume_id};
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::Lists;
use crate::operation::deadline::Deadline;
use crate::volume::{Parameters, profile_of};

/// Confirms that a volume can be used as requested, or returns the reason why not, which is no error.
///
/// A confirmation repeats the request: Mesos compares it.
pub(super) async fn validate_volume_capabilities(
    core: &ControllerCore,
    deadline: Deadline,
    request: ValidateVolumeCapabilitiesRequest,
) -> Result<ValidateVolumeCapabilitiesResponse> {
    let volume_id = volume_id(&request.volume_id)?;
    let doing = format!("validating capabilities of volume {volume_id}");
    let refusal = capability_refusal(&request).map_err(|error| error.context(&doing))?;
    let dataset = existing_dataset(volume_id)?;
    let snapshot = core
        .read(deadline, Lists::CONFIGURATION)
        .await
        .map_err(|error| error.failure_context(&doing))?;
    let configured = snapshot
        .live_dataset(dataset)?
        .ok_or_else(|| Error::unknown_volume(dataset))?;
    let refusal = refusal.or_else(|| parameter_refusal(&request, configured));
    Ok(match refusal {
        Some(message) => ValidateVolumeCapabilitiesResponse {
            confirmed: None,
            message,
        },
        None => ValidateVolumeCapabilitiesResponse {
            confirmed: Some(Confirmed {
                volume_context: request.volume_context,
                volume_capabilities: request.volume_capabilities,
                parameters: request.parameters,
                mutable_parameters: request.mutable_parameters,
            }),
            message: String::new(),
        },
    })
}

/// Returns why a capability is not supported.
///
/// # Errors
/// A capability is missing or incomplete, which makes the request itself invalid.
fn capability_refusal(request: &ValidateVolumeCapabilitiesRequest) -> Result<Option<String>> {
    if request.volume_capabilities.is_empty() {
        return Err(Error::new(
            Situation::InvalidArgument,
            "volume_capabilities is empty: at least one is needed",
        ));
    }
    let mut refusal = None;
    for capability in &request.volume_capabilities {
        // Only the node's side of the check distinguishes unsupported from malformed.
        match Capability::parse(Some(capability), Side::Node) {
            Ok(_) => {}
            Err(error) if error.situation() == Situation::UnsupportedByNode => {
                refusal.get_or_insert_with(|| error.chain());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refusal)
}

/// Returns the parameter with which the volume was not created.
fn parameter_refusal(request: &ValidateVolumeCapabilitiesRequest, dataset: &Dataset) -> Option<String> {
    if !request.mutable_parameters.is_empty() {
        return Some("mutable_parameters is not supported: Flocker cannot change a dataset".to_owned());
    }
    let wanted = match Parameters::parse(&request.parameters) {
        Ok(parameters) => parameters.profile,
        Err(error) => return Some(error.chain()),
    };
    let profile = profile_of(&dataset.metadata);
    (wanted.is_some() && wanted.as_deref() != profile).then(|| {
        format!(
            "parameters: profile {:?} was requested, but the volume was created with {}",
            wanted.unwrap_or_default(),
            profile.map_or("no profile".to_owned(), |profile| format!("profile {profile:?}"))
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use csi_proto::v1::VolumeCapability;
    use csi_proto::v1::volume_capability::access_mode::Mode;
    use csi_proto::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
    use uuid::Uuid;

    use super::*;
    use crate::volume::PROFILE_KEY;

    fn request(
        access_type: Option<AccessType>,
        parameters: &[(&str, &str)],
    ) -> ValidateVolumeCapabilitiesRequest {
        let access_mode = Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        });
        let parameters: HashMap<_, _> = parameters
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        ValidateVolumeCapabilitiesRequest {
            volume_capabilities: vec![VolumeCapability {
                access_mode,
                access_type,
            }],
            parameters,
            ..Default::default()
        }
    }

    #[test]
    fn an_unsupported_capability_is_a_message_and_a_malformed_one_an_error() {
        let mount = AccessType::Mount(MountVolume::default());
        assert_eq!(capability_refusal(&request(Some(mount), &[])).unwrap(), None);
        let refusal = capability_refusal(&request(Some(AccessType::Block(BlockVolume {})), &[])).unwrap();
        assert!(refusal.is_some_and(|message| message.contains("\"block\"")));
        assert_eq!(
            capability_refusal(&request(None, &[])).unwrap_err().situation(),
            Situation::InvalidArgument
        );
        let none = ValidateVolumeCapabilitiesRequest::default();
        assert_eq!(
            capability_refusal(&none).unwrap_err().situation(),
            Situation::InvalidArgument
        );
    }

    #[test]
    fn another_profile_or_an_unknown_parameter_is_not_confirmed() {
        let dataset = Dataset {
            dataset_id: Uuid::from_u128(1),
            primary: Uuid::from_u128(2),
            deleted: false,
            maximum_size: None,
            metadata: [(PROFILE_KEY.to_owned(), "gold".to_owned())].into(),
            unreadable: flocker_client::UnreadableParts::default(),
        };
        let refusal = |pairs: &[(&str, &str)]| parameter_refusal(&request(None, pairs), &dataset);
        assert_eq!(refusal(&[]), None);
        assert_eq!(refusal(&[("profile", "gold"), ("metadata.team", "db")]), None);
        assert!(
            refusal(&[("profile", "silver")]).is_some_and(|message| message.contains("profile \"gold\""))
        );
        assert!(refusal(&[("profil", "gold")]).is_some_and(|message| message.contains("did you mean")));
    }
}
