//! Answers in the form in which EC2 sends them (API Reference, examples of each action; "Making requests", error XML).

const NAMESPACE: &str = "xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"";

fn escaped(text: &str) -> String {
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
    format!(
        "<RunInstancesResponse {NAMESPACE}><requestId>body-1</requestId><reservationId>r-1</reservationId><ownerId>123456789012</ownerId>\
         <instancesSet><item><instanceId>{id}</instanceId><instanceState><code>0</code><name>pending</name></instanceState></item>\
         </instancesSet></RunInstancesResponse>"
    )
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
