package dev.tfcompress.demo

import dev.tfcompress.demo.json.Json
import dev.tfcompress.demo.run.Harness
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.File
import java.nio.file.Files

/** Runs as the benchmark harness asks for them. */
class HarnessTest {
    private val folder = File(Files.createTempDirectory("demo").toFile(), "bench_1").also { it.mkdirs() }
    private val source = Given.folder()
    private val bundle = Given.bundle(source)

    private fun model(number: Int, name: String = bundle.manifest.models[number].name): Map<String, Any> {
        val model = bundle.manifest.models[number]
        File(source, model.file).copyTo(File(folder, "model$number.tflite"), overwrite = true)
        val info = model.inputs.single()
        val values = bundle.feed(model, 0).getValue(info.name)
        File(folder, "in${number}_0").writeBytes(ByteArray(info.bytes) { values[it] })
        return mapOf(
            "name" to name, "sha256" to model.sha256, "file" to "model$number.tflite", "signature" to model.signature,
            "inputs" to listOf(mapOf("name" to info.name, "file" to "in${number}_0")),
        )
    }

    private fun run(models: List<Map<String, Any>>, vararg other: Pair<String, Any>): Map<*, *> {
        val manifest = mapOf(
            "schema" to 1, "run" to "bench_1", "runs" to 7, "turns" to 3, "threads" to 1, "accelerator" to "xnnpack", "profile" to false,
            "models" to models,
        ) + other
        File(folder, "manifest.json").writeText(Json.write(manifest))
        Harness(LinuxEngine(), "1.0").run(File(folder, "manifest.json"))
        return Json.parse(File(folder, "results.json").readText()) as Map<*, *>
    }

    private fun entries(results: Map<*, *>) = (results["entries"] as List<*>).map { it as Map<*, *> }

    @Test
    fun `models are measured by turns and their outputs written`() {
        val results = run(listOf(model(0), model(2)))
        assertEquals(listOf(1L, "bench_1", true, "", "1.0", "TensorFlow Lite", "2.19.0"), listOf("schema", "run", "finished", "error", "app", "runtime", "version").map { results[it] })
        val (first, second) = entries(results)
        for (entry in listOf(first, second)) {
            assertEquals(listOf("ok", "", 7L), listOf("status", "reason", "runs").map { entry[it] })
            for (time in listOf("init_ms", "first_ms", "median_ms", "p90_ms", "p99_ms", "min_ms")) assertTrue(time, (entry[time] as Number).toDouble() > 0)
        }
        assertNull(first["ratio"])
        assertTrue((second["ratio"] as Number).toDouble() > 0)
        val output = (second["outputs"] as List<*>).single() as Map<*, *>
        assertEquals("garment", output["name"])
        val expected = bundle.expected(bundle.manifest.models[2], 0).values.single()
        val got = File(folder, output["file"] as String).readBytes()
        assertTrue(got.indices.all { Math.abs(got[it] - expected[it]) <= 1 })
        assertFalse(File(folder, "results.json.new").exists())
    }

    @Test
    fun `a file that does not run is an entry with the reason`() {
        val wrong = model(1) + ("sha256" to "0".repeat(64))
        val lacking = model(2, "lacking") + ("inputs" to emptyList<Any>())
        val (damaged, without, good) = entries(run(listOf(wrong, lacking, model(0))))
        assertEquals(listOf("failed", "model1.tflite did not arrive whole"), listOf(damaged["status"], damaged["reason"]))
        assertEquals("there are no values for the input 'image'", without["reason"])
        assertEquals("ok", good["status"])
        assertNull(good["ratio"])
        val gpu = entries(run(listOf(model(0)), "accelerator" to "gpu")).single()
        assertEquals("This machine has no GPU for the runtime.", gpu["reason"])
        val profiled = entries(run(listOf(model(0)), "profile" to true)).single()
        assertEquals(listOf("the app cannot time single operations"), profiled["warnings"])
    }

    @Test
    fun `a manifest that is not understood is told`() {
        fun told(vararg other: Pair<String, Any>) = run(listOf(model(0)), *other).let { assertEquals(true, it["finished"]); it["error"] }
        assertEquals("the manifest is of schema 2, this app reads 1", told("schema" to 2))
        assertEquals("the manifest is of run other, its folder is bench_1", told("run" to "other"))
        assertEquals("there is no accelerator 'npu'", told("accelerator" to "npu"))
        assertEquals("runs, turns and threads must be at least 1", told("runs" to 0))
        assertEquals("manifest.models[0].name is missing", told("models" to listOf(mapOf("a" to 1))))
        assertEquals("'../x' is no plain name of a file", told("models" to listOf(model(0) + ("file" to "../x"))))
    }
}
