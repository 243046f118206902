package dev.tfcompress.demo

import dev.tfcompress.demo.bundle.Bundle
import dev.tfcompress.demo.bundle.Folder
import dev.tfcompress.demo.run.Choice
import dev.tfcompress.demo.run.Harness
import dev.tfcompress.demo.run.Report
import dev.tfcompress.demo.run.Run
import dev.tfcompress.demo.run.Source
import dev.tfcompress.demo.runtime.Accelerator
import dev.tfcompress.demo.runtime.Settings
import java.io.File

/**
 * The app's code without its screens, for tests of Python:
 *
 *     HeadlessKt harness MANIFEST    what BenchmarkActivity does
 *     HeadlessKt bundle FOLDER       every model on the first sample, the results as they are shared
 */
fun main(arguments: Array<String>) {
    val (what, path) = arguments
    val engine = LinuxEngine()
    if (what == "harness") {
        Harness(engine, "1.0").run(File(path))
        return
    }
    val bundle = Bundle.open(Folder(File(path)))
    val choices = bundle.manifest.models.map { Choice(it, Settings(Accelerator.XNNPACK, 1)) }
    val report = Report(engine, "1.0", bundle.manifest.name)
    Run(engine, bundle).run(choices, Source.Sample(0), 20).forEach(report::add)
    report.finished = true
    print(report.json())
}
