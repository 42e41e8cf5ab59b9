// onnxruntime 1.30 collects usage events on Linux unless this variable is set before its first session. The engine
// thread shares the environment of its process: native code does not see what a thread sets in a copy.
process.env['ORT_DISABLE_TELEMETRY'] ??= '1'
