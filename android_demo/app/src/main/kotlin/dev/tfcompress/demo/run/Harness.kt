package dev.tfcompress.demo.run

import dev.tfcompress.demo.bundle.Folder
import dev.tfcompress.demo.json.Fields
import dev.tfcompress.demo.json.Json
import dev.tfcompress.demo.json.JsonException
import dev.tfcompress.demo.measure.Statistics
import dev.tfcompress.demo.runtime.Accelerator
import dev.tfcompress.demo.runtime.Engine
import dev.tfcompress.demo.runtime.EngineException
import dev.tfcompress.demo.runtime.Session
import dev.tfcompress.demo.runtime.Settings
import dev.tfcompress.demo.tensor.TensorInfo
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.security.MessageDigest

/** A run without a touch, as `tflite_export/bench/android_app.py` asks for it: manifest.json in, results.json out. */
class Harness(private val engine: Engine, private val app: String) {
    private class Model(fields: Fields) {
        val name = fields.text("name")
        val sha256 = fields.text("sha256")
        val file = plain(fields.text("file"))
        val signature = fields.text("signature")
        val inputs = fields.objects("inputs").associate { it.text("name") to plain(it.text("file")) }
    }

    private class Job(fields: Fields) {
        val run = fields.text("run")
        val runs = fields.whole("runs")
        val turns = fields.whole("turns")
        val threads = fields.whole("threads")
        val accelerator = fields.text("accelerator")
        val profile = fields.truth("profile")
        val models = fields.objects("models").map(::Model)
    }

    /**
     * @param manifest lies in the run's own folder.
     * @param told called with a line for people before each step.
     * @return why nothing could be done, else "".
     */
    fun run(manifest: File, told: (String) -> Unit = {}): String {
        val folder = manifest.absoluteFile.parentFile!!
        val report = Report(engine, app, folder.name)
        try {
            val fields = Fields(Json.parse(manifest.readText()), "manifest")
            val schema = fields.whole("schema")
            if (schema != Report.SCHEMA) throw JsonException("the manifest is of schema $schema, this app reads ${Report.SCHEMA}")
            measure(Job(fields), folder, report, told)
        } catch (error: JsonException) {
            report.error = error.message.orEmpty()
        } catch (error: IOException) {
            report.error = "a file of the run cannot be read or written: ${error.message}"
        }
        report.finished = true
        write(folder, report)
        told(report.error.ifEmpty { "done" })
        return report.error
    }

    private fun measure(job: Job, folder: File, report: Report, told: (String) -> Unit) {
        if (job.run != folder.name) throw JsonException("the manifest is of run ${job.run}, its folder is ${folder.name}")
        if (job.runs < 1 || job.turns < 1 || job.threads < 1) throw JsonException("runs, turns and threads must be at least 1")
        val accelerator = Accelerator.of(job.accelerator) ?: throw JsonException("there is no accelerator '${job.accelerator}'")
        write(folder, report)
        val open = ArrayList<Opened>()
        try {
            job.models.forEachIndexed { number, model ->
                told("opening ${model.name} (${number + 1} of ${job.models.size})")
                try {
                    open += Opened(model, number, folder, Settings(accelerator, job.threads, model.signature))
                } catch (error: EngineException) {
                    report.add(Report.failed(model.name, model.sha256, error.message.orEmpty()))
                    write(folder, report)
                }
            }
            for (turn in 0 until job.turns) for (one in open) {
                told("timing ${one.model.name}, turn ${turn + 1} of ${job.turns}")
                one.time(Run.share(job.runs, job.turns, turn))
                if (turn == job.turns - 1) {
                    report.add(one.entry(open.first().takeIf { it.number == 0 }, job.profile))
                    write(folder, report)
                }
            }
        } finally {
            open.forEach { it.session.close() }
        }
    }

    private inner class Opened(val model: Model, val number: Int, private val folder: File, settings: Settings) {
        val session: Session
        private val turns = ArrayList<DoubleArray>()
        private val init: Double
        private val first: Double
        private val memory: Long?
        private val feeds: Map<String, ByteBuffer>
        private val outputs: List<Map<String, String>>
        private var broken = ""

        init {
            engine.missing(settings.accelerator)?.let { throw EngineException(it) }
            val content = readable { Folder(folder).map(model.file) }
            if (sha256(content) != model.sha256) throw EngineException("${model.file} did not arrive whole")
            val before = Memory.resident()
            val begin = System.nanoTime()
            session = engine.open(content, settings)
            init = Run.since(begin)
            try {
                feeds = session.inputs.associate { it.name to feed(it) }
                val start = System.nanoTime()
                val got = session.run(feeds)
                first = Run.since(start)
                memory = Memory.above(before)
                outputs = session.outputs.mapIndexed { position, info ->
                    val file = "out${number}_$position"
                    val values = got.getValue(info.name)
                    readable { File(folder, file).writeBytes(ByteArray(values.remaining()).also { values.duplicate().get(it) }) }
                    mapOf("name" to info.name, "file" to file)
                }
            } catch (error: Exception) {
                session.close()
                throw error as? EngineException ?: EngineException("the model cannot be run: ${error.message}", error)
            }
        }

        fun time(runs: Int) {
            if (broken.isNotEmpty()) return
            try {
                turns += DoubleArray(runs) {
                    val start = System.nanoTime()
                    session.run(feeds)
                    Run.since(start)
                }
            } catch (error: EngineException) {
                broken = error.message.orEmpty()
            }
        }

        fun entry(other: Opened?, profile: Boolean): Map<String, Any?> {
            if (broken.isNotEmpty()) return Report.failed(model.name, model.sha256, broken)
            val times = Statistics.summary(turns.flatMap { it.asIterable() }.toDoubleArray())
            val ratio = if (other == null || other === this) null else Statistics.pairedRatio(turns, other.turns)
            val warnings = if (profile) listOf("the app cannot time single operations") else emptyList()
            return Report.measured(model.name, model.sha256, session.delegate, init, first, times, ratio, memory) +
                mapOf("outputs" to outputs, "agreement" to null, "warnings" to warnings)
        }

        private fun feed(info: TensorInfo): ByteBuffer {
            val file = model.inputs[info.name] ?: throw EngineException("there are no values for the input '${info.name}'")
            val bytes = readable { File(folder, file).readBytes() }
            if (bytes.size != info.bytes) throw EngineException("'${info.name}' takes ${info.bytes} bytes, $file has ${bytes.size}")
            return info.buffer().put(bytes).also { it.rewind() }
        }

        private fun <T> readable(read: () -> T): T = try {
            read()
        } catch (error: IOException) {
            throw EngineException("a file of the run cannot be read or written: ${error.message}", error)
        }
    }

    private companion object {
        val PLAIN = Regex("[A-Za-z0-9_][A-Za-z0-9_.]*")

        fun plain(file: String): String = if (PLAIN.matches(file)) file else throw JsonException("'$file' is no plain name of a file")

        fun sha256(content: ByteBuffer): String = MessageDigest.getInstance("SHA-256").run {
            update(content.duplicate())
            digest().joinToString("") { "%02x".format(it) }
        }

        /** Whole or not at all: a reader sees the old file or the new one. */
        fun write(folder: File, report: Report) {
            val beside = File(folder, "results.json.new")
            beside.writeText(report.json())
            if (!beside.renameTo(File(folder, "results.json"))) throw IOException("results.json cannot be replaced")
        }
    }
}
