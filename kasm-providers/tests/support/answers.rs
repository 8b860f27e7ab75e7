//! Answers in the form in which EC2 sends them (API Reference, examples of each action; "Making requests", error XML).

const NAMESPACE: &str = "xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"";

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

pub(crate) fn error(code: &str, message: &str) -> String {
    let (code, message) = (escaped(code), escaped(message));
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
         <RequestID>body-1</RequestID></Response>"
    )
}

pub(crate) fn launched(id: &str) -> String {
    launched_as(id, (0, "pending"))
}

/// The answer to a launch that was made before, when its machine has come further.
pub(crate) fn launched_as(id: &str, state: (u16, &str)) -> String {
    let (code, name) = state;
    format!(
        "<RunInstancesResponse {NAMESPACE}><requestId>body-1</requestId><reservationId>r-1</reservationId><ownerId>123456789012</ownerId>\
         <instancesSet><item><instanceId>{id}</instanceId><instanceState><code>{code}</code><name>{name}</name></instanceState></item>\
         </instancesSet></RunInstancesResponse>"
    )
}

/// The answer of an action that only says that it was done.
pub(crate) fn done(action: &str) -> String {
    format!("<{action}Response {NAMESPACE}><requestId>body-1</requestId><return>true</return></{action}Response>")
}

pub(crate) fn terminating(id: &str, code: u16, name: &str) -> String {
    format!(
        "<TerminateInstancesResponse {NAMESPACE}><requestId>body-1</requestId><instancesSet><item><instanceId>{id}</instanceId>\
         <currentState><code>{code}</code><name>{name}</name></currentState></item></instancesSet></TerminateInstancesResponse>"
    )
}

pub(crate) fn images(ami: &str, root: &str) -> String {
    format!(
        "<DescribeImagesResponse {NAMESPACE}><requestId>body-1</requestId><imagesSet><item><imageId>{ami}</imageId>\
         <rootDeviceName>{root}</rootDeviceName></item></imagesSet></DescribeImagesResponse>"
    )
}

pub(crate) fn subnets(id: &str, zone: &str, free: u32) -> String {
    let subnet = format!(
        "<subnetId>{id}</subnetId><state>available</state><vpcId>vpc-1</vpcId><availabilityZone>{zone}</availabilityZone>\
         <availableIpAddressCount>{free}</availableIpAddressCount>"
    );
    set("DescribeSubnets", "subnetSet", &[subnet])
}

pub(crate) fn groups(id: &str) -> String {
    let group = format!("<groupId>{id}</groupId><vpcId>vpc-1</vpcId>");
    set("DescribeSecurityGroups", "securityGroupInfo", &[group])
}

pub(crate) fn key_pairs(name: &str, kind: &str) -> String {
    set("DescribeKeyPairs", "keySet", &[format!("<keyName>{name}</keyName><keyType>{kind}</keyType>")])
}

pub(crate) fn offerings(sizes: &[&str]) -> String {
    let items: Vec<String> = sizes.iter().map(|size| format!("<instanceType>{size}</instanceType>")).collect();
    set("DescribeInstanceTypeOfferings", "instanceTypeOfferingSet", &items)
}

/// The answer to a Describe action: its items, each given as the XML of its members.
pub(crate) fn set(action: &str, name: &str, items: &[String]) -> String {
    let items: String = items.iter().map(|item| format!("<item>{item}</item>")).collect();
    format!("<{action}Response {NAMESPACE}><requestId>body-1</requestId><{name}>{items}</{name}></{action}Response>")
}

/// A page of instances, each given as the XML of its members, and the token of the next page.
pub(crate) fn described(instances: &[String], next: Option<&str>) -> String {
    let items = instances
        .iter()
        .map(|item| format!("<item><instancesSet><item>{item}</item></instancesSet></item>"))
        .collect::<String>();
    let next = next.map(|token| format!("<nextToken>{token}</nextToken>")).unwrap_or_default();
    format!(
        "<DescribeInstancesResponse {NAMESPACE}><requestId>body-1</requestId><reservationSet>{items}</reservationSet>{next}</DescribeInstancesResponse>"
    )
}

pub(crate) fn instance(id: &str, state: (u16, &str), more: &str) -> String {
    let (code, name) = state;
    format!("<instanceId>{id}</instanceId><instanceState><code>{code}</code><name>{name}</name></instanceState>{more}")
}

pub(crate) fn reason(code: &str, message: &str) -> String {
    format!("<stateReason><code>{code}</code><message>{}</message></stateReason>", escaped(message))
}
