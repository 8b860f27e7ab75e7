//! The RunInstances request: one machine, marked in the call that makes it.
//!
//! Source: EC2 API Reference, RunInstances and the types it names.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, HttpTokensState, IamInstanceProfileSpecification,
    InstanceMetadataOptionsRequest, InstanceNetworkInterfaceSpecification, InstanceType, ResourceType,
    ShutdownBehavior, Tag, TagSpecification, VolumeType,
};
use kasm_autoscale_core::ports::{Marker, ServerSpec};

use super::machine::{Ebs, MachineSettings, TAG_PREFIX, is_arn};

/// Our four tags, by the ends of their keys.
pub(super) const TAG_DEPLOYMENT: &str = "deployment";
pub(super) const TAG_POOL: &str = "pool";
pub(super) const TAG_CONFIG: &str = "config";
pub(super) const TAG_SERVER: &str = "server";

/// What gets our tags: everything that costs money and could be left behind.
const TAGGED: [ResourceType; 3] = [ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface];

/// The key of one of our tags.
pub(super) fn tag_key(end: &str) -> String {
    format!("{TAG_PREFIX}{end}")
}

/// The request but for its overrides. `user_data` is in base64; `root_device` is there if the settings need it.
pub(super) fn run_instances(
    client: &Client,
    spec: &ServerSpec,
    settings: &MachineSettings,
    user_data: Option<String>,
    root_device: Option<String>,
) -> RunInstancesFluentBuilder {
    let tags = tags(&spec.marker, spec.name.as_str(), settings);
    let tag_specifications = TAGGED.iter().map(|resource| {
        TagSpecification::builder().resource_type(resource.clone()).set_tags(Some(tags.clone())).build()
    });
    let metadata = InstanceMetadataOptionsRequest::builder().http_tokens(HttpTokensState::Required).build();
    let request = client
        .run_instances()
        .image_id(&settings.ami)
        .instance_type(InstanceType::from(settings.instance_type.as_str()))
        .min_count(1)
        .max_count(1)
        .client_token(&spec.token)
        .set_tag_specifications(Some(tag_specifications.collect()))
        .set_user_data(user_data)
        .set_key_name(settings.key_name.clone())
        .set_iam_instance_profile(settings.instance_profile.as_deref().map(profile))
        .set_block_device_mappings(settings.ebs.as_ref().map(|ebs| vec![root_volume(ebs, root_device)]))
        // Requests without a token let a mere web page on the desktop read the machine's credentials.
        .metadata_options(metadata)
        // A machine that its user shuts down must not stay, stopped and paid for.
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate);
    with_network(request, settings)
}

/// The network, in one of the two forms of which EC2 takes only one at a time.
fn with_network(request: RunInstancesFluentBuilder, settings: &MachineSettings) -> RunInstancesFluentBuilder {
    let groups = (!settings.security_group_ids.is_empty()).then(|| settings.security_group_ids.clone());
    let Some(public_ip) = settings.public_ip else {
        return request.set_subnet_id(settings.subnet_id.clone()).set_security_group_ids(groups);
    };
    let interface = InstanceNetworkInterfaceSpecification::builder()
        .device_index(0)
        .associate_public_ip_address(public_ip)
        .delete_on_termination(true)
        .set_subnet_id(settings.subnet_id.clone())
        .set_groups(groups)
        .build();
    request.network_interfaces(interface)
}

fn profile(name: &str) -> IamInstanceProfileSpecification {
    let builder = IamInstanceProfileSpecification::builder();
    if is_arn(name) { builder.arn(name).build() } else { builder.name(name).build() }
}

fn root_volume(ebs: &Ebs, device: Option<String>) -> BlockDeviceMapping {
    let volume = EbsBlockDevice::builder()
        .set_volume_size(ebs.size_gib)
        .set_volume_type(ebs.volume_type.map(VolumeType::from))
        .set_iops(ebs.iops)
        .delete_on_termination(true)
        .build();
    BlockDeviceMapping::builder().set_device_name(device).ebs(volume).build()
}

fn tags(marker: &Marker, name: &str, settings: &MachineSettings) -> Vec<Tag> {
    let ours = [
        (tag_key(TAG_DEPLOYMENT), marker.deployment.to_string()),
        (tag_key(TAG_POOL), marker.pool.to_string()),
        (tag_key(TAG_CONFIG), marker.config.to_string()),
        (tag_key(TAG_SERVER), marker.server.clone()),
        ("Name".to_owned(), name.to_owned()),
    ];
    let custom = settings.tags.iter().map(|(key, value)| (key.clone(), value.clone()));
    ours.into_iter().chain(custom).map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}
