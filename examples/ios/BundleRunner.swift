// Runs a bundle of tflite_export.export_bundle on an iPhone and prints the JSON that the Android app writes.
//
//     let folder = Bundle.main.url(forResource: "bundle", withExtension: nil)!
//     print(try BundleRunner(folder: folder).report(on: .coreML, runs: 50))
//
// Call it off the main thread. Add the folder to the app as a folder reference, so that its paths stay as they are.

import Foundation
import TensorFlowLite

/// What does the work. Core ML takes files of float32 or float16; of others it leaves every operation to the CPU.
enum Accelerator: String {
  case xnnpack, cpu
  case coreML = "coreml"
  case metal
}

/// manifest.json; tflite_export/manifest.py tells its form.
struct Manifest: Decodable {
  struct Input: Decodable {
    let name, type, file: String
    let shape: [Int]
  }

  struct End: Decodable {
    let name, type: String
    let shape: [Int]
    let scale: Double?
    let zeroPoint: Int?
    let step: Double?
    let labelled: Bool?
    let expected: String?
  }

  struct Model: Decodable {
    let name, file, sha256, precision: String
    let size: Int
    let inputs, outputs: [End]
  }

  let format: String
  let schema, rows: Int
  let name: String
  let labels: [String]
  let inputs: [Input]
  let models: [Model]
}

struct BundleError: Error, CustomStringConvertible {
  let description: String
}

/// Models of a bundle on the TensorFlow Lite of this app.
final class BundleRunner {
  let manifest: Manifest
  private let folder: URL
  private let samples: [Data]

  init(folder: URL) throws {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let read = try decoder.decode(Manifest.self, from: Data(contentsOf: folder.appendingPathComponent("manifest.json")))
    guard read.format == "tflite_export.bundle", read.schema == 1 else {
      throw BundleError(description: "\(folder.path) is no bundle of version 1")
    }
    self.folder = folder
    manifest = read
    samples = try read.inputs.map { try Data(contentsOf: folder.appendingPathComponent($0.file)) }
  }

  /// Every model on the bundle's samples: times, and agreement with the answers that are expected.
  func report(on accelerator: Accelerator, threads: Int = 1, runs: Int = 50) throws -> String {
    var entries: [[String: Any]] = []
    for model in manifest.models {
      do {
        entries.append(try measure(model, accelerator, threads, runs))
      } catch {
        entries.append(["name": model.name, "sha256": model.sha256, "status": "failed", "reason": "\(error)"])
      }
    }
    let told: [String: Any] = [
      "schema": 1, "run": manifest.name, "finished": true, "error": "", "app": "1.0", "runtime": "TensorFlow Lite",
      "version": Runtime.version, "entries": entries,
    ]
    let json = try JSONSerialization.data(withJSONObject: told, options: [.prettyPrinted, .sortedKeys])
    return String(decoding: json, as: UTF8.self)
  }

  private func measure(_ model: Manifest.Model, _ accelerator: Accelerator, _ threads: Int, _ runs: Int) throws
    -> [String: Any]
  {
    var options = Interpreter.Options()
    options.threadCount = threads
    options.isXNNPackEnabled = accelerator == .xnnpack
    let begin = DispatchTime.now()
    let path = folder.appendingPathComponent(model.file).path
    let interpreter = try Interpreter(modelPath: path, options: options, delegates: delegates(accelerator))
    try interpreter.allocateTensors()
    let opening = milliseconds(since: begin)

    let feeds = try (0..<manifest.rows).map { row in try self.feed(model, row) }
    let start = DispatchTime.now()
    try run(interpreter, feeds[0])
    let first = milliseconds(since: start)
    let answers = try top(model, interpreter)
    let agreement = try compare(model, interpreter, feeds)
    let times = try (0..<runs).map { number -> Double in
      let start = DispatchTime.now()
      try run(interpreter, feeds[number % feeds.count])
      return milliseconds(since: start)
    }.sorted()
    let median = percentile(times, 50)
    return [
      "name": model.name, "sha256": model.sha256, "status": "ok", "reason": "", "delegate": accelerator.rawValue,
      "accelerator": accelerator.rawValue, "threads": threads, "size": model.size, "runs": runs, "init_ms": opening,
      "first_ms": first, "median_ms": median, "p90_ms": percentile(times, 90), "p99_ms": percentile(times, 99),
      "min_ms": times[0], "spread": median > 0 ? (percentile(times, 75) - percentile(times, 25)) / median : 0,
      "ratio": NSNull(), "peak_memory": NSNull(), "operations": [], "outputs": [], "warnings": [],
      "agreement": agreement, "answers": answers,
    ]
  }

  private func delegates(_ accelerator: Accelerator) throws -> [Delegate]? {
    switch accelerator {
    case .xnnpack, .cpu: return nil
    case .metal: return [MetalDelegate()]
    case .coreML:
      // Nil on phones without a Neural Engine (before the A12), unless it is asked for on all of them.
      guard let delegate = CoreMLDelegate() else { throw BundleError(description: "this phone has no Neural Engine") }
      return [delegate]
    }
  }

  private func run(_ interpreter: Interpreter, _ feed: [Data]) throws {
    for (index, data) in feed.enumerated() { try interpreter.copy(data, toInputAt: index) }
    try interpreter.invoke()
  }

  /// Raw inputs of sample `row`; the order of the manifest is that of the file.
  private func feed(_ model: Manifest.Model, _ row: Int) throws -> [Data] {
    try zip(manifest.inputs, zip(model.inputs, samples)).map { input, pair in
      let (end, data) = pair
      let size = input.shape.reduce(1, *) * (try width(input.type))
      guard data.count == size * manifest.rows else { throw BundleError(description: "\(input.file) is not whole") }
      let sample = data.subdata(in: row * size..<(row + 1) * size)
      guard let scale = end.scale, let zero = end.zeroPoint else { return sample }
      let real = sample.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
      let steps = real.map { ($0 / Float(scale)).rounded(.toNearestOrEven) + Float(zero) }
      switch end.type {
      case "int8": return bytes(steps.map { Int8(min(127, max(-128, $0))) })
      case "uint8": return bytes(steps.map { UInt8(min(255, max(0, $0))) })
      case "int16": return bytes(steps.map { Int16(min(32767, max(-32768, $0))) })
      default: throw BundleError(description: "'\(end.name)' of \(model.name) is of type \(end.type)")
      }
    }
  }

  /// Outputs beside those that are expected: in steps of an integer output, else in real units; the worst is told.
  private func compare(_ model: Manifest.Model, _ interpreter: Interpreter, _ feeds: [[Data]]) throws -> [String: Any] {
    var values = 0, equal = 0, largest = [Double](repeating: 0, count: model.outputs.count)
    let expected = try model.outputs.map { try Data(contentsOf: folder.appendingPathComponent($0.expected ?? "")) }
    for (row, feed) in feeds.enumerated() {
      try run(interpreter, feed)
      for (index, end) in model.outputs.enumerated() {
        let got = try numbers(interpreter.output(at: index).data, end.type)
        let size = got.count * (try width(end.type))
        guard expected[index].count >= (row + 1) * size else { throw BundleError(description: "\(end.name): other size") }
        let wanted = numbers(expected[index].subdata(in: row * size..<(row + 1) * size), end.type)
        values += got.count
        equal += zip(got, wanted).filter { $0 == $1 }.count
        largest[index] = zip(got, wanted).map { abs($0 - $1) }.reduce(largest[index], max)
      }
    }
    func allowed(_ index: Int) -> Double {
      model.outputs[index].scale != nil ? 1 : max(1e-4, (model.outputs[index].step ?? 0) * 1.0001)
    }
    let worst = largest.indices.max { largest[$0] / allowed($0) < largest[$1] / allowed($1) } ?? 0
    return [
      "against": "expected", "values": values, "equal": values > 0 ? Double(equal) / Double(values) : 1,
      "largest": largest[worst], "unit": model.outputs[worst].scale != nil ? "steps" : "real",
    ]
  }

  private func top(_ model: Manifest.Model, _ interpreter: Interpreter) throws -> [[String: Any]] {
    let index = model.outputs.firstIndex { $0.labelled == true } ?? 0
    let end = model.outputs[index]
    let raw = try numbers(interpreter.output(at: index).data, end.type)
    let real = raw.map { value in end.scale.map { $0 * (value - Double(end.zeroPoint ?? 0)) } ?? value }
    return real.indices.sorted { real[$0] > real[$1] }.prefix(3).map { place in
      let label = end.labelled == true && place < manifest.labels.count ? manifest.labels[place] : "class \(place)"
      return ["label": label, "value": real[place]]
    }
  }

  private func numbers(_ data: Data, _ type: String) -> [Double] {
    data.withUnsafeBytes { raw in
      switch type {
      case "float32": return raw.bindMemory(to: Float.self).map(Double.init)
      case "int8": return raw.bindMemory(to: Int8.self).map(Double.init)
      case "uint8", "bool": return raw.bindMemory(to: UInt8.self).map(Double.init)
      case "int16": return raw.bindMemory(to: Int16.self).map(Double.init)
      case "int32": return raw.bindMemory(to: Int32.self).map(Double.init)
      default: return raw.bindMemory(to: Int64.self).map(Double.init)
      }
    }
  }

  private func width(_ type: String) throws -> Int {
    let widths = ["float32": 4, "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "int64": 8, "bool": 1]
    guard let found = widths[type] else { throw BundleError(description: "the type \(type) is not known") }
    return found
  }

  private func bytes<T>(_ values: [T]) -> Data { values.withUnsafeBufferPointer { Data(buffer: $0) } }

  /// In proportion between two values, as NumPy does.
  private func percentile(_ sorted: [Double], _ share: Double) -> Double {
    let place = share / 100 * Double(sorted.count - 1)
    let below = Int(place), above = min(Int(place) + 1, sorted.count - 1)
    return sorted[below] + (sorted[above] - sorted[below]) * (place - Double(below))
  }

  private func milliseconds(since begin: DispatchTime) -> Double {
    Double(DispatchTime.now().uptimeNanoseconds - begin.uptimeNanoseconds) / 1e6
  }
}
